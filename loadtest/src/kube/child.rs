//! This program once more, as a child: a line of JSON to its input is a question, a line from its output the
//! answer. Its CPU and memory are its own, so they are not counted as anybody else's.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child as Process, ChildStdin, ChildStdout, Command};

/// Orders take milliseconds, on a busy machine or of many servers some seconds: this is far beyond.
const LIMIT: Duration = Duration::from_mins(10);

/// A running child. It ends with its input, and when it is dropped.
pub(super) struct Child {
    pub(super) pid: u32,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    process: Process,
}

impl Child {
    pub(super) fn start(words: &[&str]) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting loadtest {}", words.join(" ")))?;
        let questions = process.stdin.take().context("a pipe for its questions")?;
        let answers = BufReader::new(process.stdout.take().context("a pipe for its answers")?).lines();
        let pid = process.id().context("it ended at once")?;
        Ok(Self { pid, questions, answers, process })
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask<T: DeserializeOwned>(&mut self, question: &impl Serialize) -> anyhow::Result<T> {
        self.ask_for(Duration::ZERO, question).await
    }

    /// The same of what takes so long by itself.
    pub(super) async fn ask_for<T: DeserializeOwned>(
        &mut self,
        long: Duration,
        question: &impl Serialize,
    ) -> anyhow::Result<T> {
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        self.questions.write_all(&line).await.context("a child of this program ended")?;
        let line = tokio::time::timeout(LIMIT + long, self.answers.next_line()).await;
        let line = line.context("no answer in time")??.context("a child of this program ended")?;
        let answer: Value = serde_json::from_str(&line)?;
        if let Some(why) = answer["error"].as_str() {
            bail!("{why}");
        }
        Ok(serde_json::from_value(answer)?)
    }

    /// Ends it, and waits until it has.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        self.process.kill().await.context("ending a child")
    }
}

/// The child's side: answers each line of the input until that ends.
pub(super) async fn answer_all<Q: DeserializeOwned>(
    mut answer: impl AsyncFnMut(Q) -> anyhow::Result<Value>,
) -> anyhow::Result<()> {
    let mut questions = BufReader::new(tokio::io::stdin()).lines();
    let mut answers = tokio::io::stdout();
    while let Some(line) = questions.next_line().await? {
        let result = match serde_json::from_str(&line) {
            Ok(question) => answer(question).await,
            Err(error) => Err(error.into()),
        };
        let value = result.unwrap_or_else(|error| serde_json::json!({ "error": format!("{error:#}") }));
        answers.write_all(format!("{value}\n").as_bytes()).await?;
        answers.flush().await?;
    }
    Ok(())
}
