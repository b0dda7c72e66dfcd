//! Parses what was typed, starts tracing, runs it, and turns an error into an exit code.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tidegate::app::App;
use tidegate::bootstrap::{Options, bootstrap, tls};
use tidegate::check::Checked;
use tidegate::cli::{self, Command, Invocation, LogFormat, Output};
use tidegate::departure::{Drained, drain};
use tidegate::{client, demo, operate, wait};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

fn main() -> ExitCode {
    match cli::parse().and_then(run) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tidegate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(invocation: Invocation) -> anyhow::Result<ExitCode> {
    let Invocation { log_format, log_filter, command } = invocation;
    match command {
        Command::Bootstrap { options, output, install } => {
            if let Some(file) = install {
                let own = std::env::current_exe().context("--install: finding this program")?;
                std::fs::copy(own, &file)
                    .with_context(|| format!("--install: writing {}", file.display()))?;
            }
            match output {
                Some(file) => write_bootstrap(&options, &file)?,
                None => print(&bootstrap(&options))?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::DrainEnvoy(config) => {
            let said = match runtime()?.block_on(drain(config))? {
                Drained::Empty => "empty".to_owned(),
                Drained::Left(count) => format!("the time is over; requests and WebSockets left: {count}"),
            };
            print(&format!("{said}\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { paths, rules, samples, output } => {
            check(&Checked::read(&paths, &rules, samples), output)
        }
        Command::Ask(ask) => {
            let answer = runtime()?.block_on(client::ask(ask))?;
            print(&format!("{answer}\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Operate(config) => runtime()?.block_on(operate::run(*config, interrupted())),
        Command::Wait(mut config) => {
            let runtime = runtime()?;
            if let Some(cli::Labelled { labels, fleets, place }) = config.labelled.take() {
                config.targets = runtime.block_on(operate::labelled(&place, &labels, &fleets))?;
            }
            let interrupted = async { _ = tokio::signal::ctrl_c().await };
            Ok(match runtime.block_on(wait::wait(*config, interrupted))? {
                wait::Ended::Empty => ExitCode::SUCCESS,
                wait::Ended::TimeOver => ExitCode::FAILURE,
                // As shells have it: 128 and the number of the signal.
                wait::Ended::Interrupted => ExitCode::from(130),
            })
        }
        Command::Serve(config) => {
            log(log_format, log_filter.as_deref().unwrap_or("info,notify=warn"), std::io::stderr)?;
            runtime()?.block_on(async { App::start(config).await?.run(interrupted()).await })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo(config) => {
            // The demo says itself what happens; a log between its lines is for what goes wrong.
            let filter = log_filter.as_deref().unwrap_or("warn");
            log(log_format, filter, || demo::terminal::Cooked(std::io::stderr()))?;
            runtime()?.block_on(demo::run(config, interrupted()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")
}

fn log(
    format: LogFormat,
    filter: &str,
    writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let filter: EnvFilter =
        filter.parse().with_context(|| format!("RUST_LOG={filter:?} is not a filter; try tidegate=debug"))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match format {
        LogFormat::Text => subscriber.with_target(false).with_ansi(false).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Writes the bootstrap to a file, after what it refers to.
fn write_bootstrap(options: &Options, file: &Path) -> anyhow::Result<()> {
    let write = |file: &Path, text: String| {
        std::fs::write(file, text).with_context(|| format!("--output: writing {}", file.display()))
    };
    if let Some(https) = &options.https {
        write(Path::new(https.secret.as_str()), tls::secret(https))?;
    }
    write(file, bootstrap(options))
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

/// Returns at Ctrl-C and at the signals by which services are stopped.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

fn check(checked: &Checked, output: Output) -> anyhow::Result<ExitCode> {
    let text = match output {
        Output::Json => serde_json::to_string_pretty(checked)? + "\n",
        Output::Table => checked.to_string(),
    };
    print(&text)?;
    Ok(if checked.wrongs() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
