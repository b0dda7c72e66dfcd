//! The operators' commands: game servers drained, put into maintenance, weighed, and a host's players switched over.
//!
//! They change what stands on the objects, in files or in a cluster, and never ask a control plane, which only reads
//! it. What is to change is decided by `plan`; here it is read, shown and written.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::cli::{self, Action, Operate, Place};
use crate::plan::{self, Change, Member, Selector, Switch, Target, Wish};

mod cluster;
mod files;
mod members;
mod voice;

use cluster::Cluster;
use files::Files;
use voice::Voice;

/// What a command that was interrupted ends with, as a shell has it.
const INTERRUPTED: u8 = 130;

/// Where servers stand.
enum Ground {
    Files(Files),
    Cluster(Box<Cluster>),
}

/// The servers, and what could not be read.
struct Read {
    members: Vec<Member>,
    problems: Vec<String>,
}

impl Ground {
    async fn open(place: &Place) -> anyhow::Result<Self> {
        Ok(match &place.ground {
            cli::Ground::Files { dir, max_file_bytes } => Self::Files(Files {
                dir: dir.clone(),
                rules: place.rules.clone(),
                max_file_bytes: *max_file_bytes,
            }),
            cli::Ground::Kube { managers } => Self::Cluster(Box::new(Cluster::open(place, managers).await?)),
        })
    }

    /// The namespace of those who say none; none is every namespace.
    fn namespace(&self, place: &Place) -> Option<String> {
        let own = match self {
            Self::Files(_) => "default",
            Self::Cluster(cluster) => &cluster.namespace,
        };
        (!place.all_namespaces).then(|| place.namespace.clone().unwrap_or_else(|| own.to_owned()))
    }

    async fn read(&mut self) -> anyhow::Result<Read> {
        match self {
            Self::Files(files) => files.read().await,
            Self::Cluster(cluster) => cluster.read().await,
        }
    }

    /// Where each change stands, as a file and its line; fails when one can't be made, before any is.
    async fn places(&self, members: &[Member], changes: &[Change]) -> anyhow::Result<Vec<Option<String>>> {
        match self {
            Self::Files(files) => files.places(members, changes).await,
            Self::Cluster(_) => Ok(vec![None; changes.len()]),
        }
    }

    /// Writes each part when the one before it is there. Returns how many objects or files were written.
    async fn write(&mut self, members: &[Member], parts: &[&[Change]]) -> anyhow::Result<usize> {
        match self {
            // A file is written once, with all that changes in it; a file in which something rises comes first.
            Self::Files(files) => files.write(members, &parts.concat()).await,
            Self::Cluster(cluster) => {
                let mut written = 0;
                for part in parts {
                    written += cluster.write(members, part).await?;
                }
                Ok(written)
            }
        }
    }

    /// How a command says it.
    fn words(&self, place: &Place) -> String {
        let ground = match self {
            Self::Files(files) => format!(" --fleet {}", files.dir.display()),
            Self::Cluster(_) => " --kube".to_owned(),
        };
        let namespace = place.namespace.as_ref().map(|name| format!(" -n {name}")).unwrap_or_default();
        let all = if place.all_namespaces { " -A" } else { "" };
        format!("{ground}{namespace}{all}")
    }
}

/// Does what was asked for. `interrupted` returns when the user has had enough.
pub async fn run(
    config: Operate,
    interrupted: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<ExitCode> {
    let mut ground = Ground::open(&config.place).await?;
    let mut voice = Voice::new(config.output, config.dry_run);
    match &config.action {
        Action::Wish { target, wish } => {
            apply(&mut ground, &config, target, wish, &mut voice).await?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Switch { host, to, percent, step, every } => {
            let asked = Asked { host, to, percent: *percent, step: *step, every: *every };
            let (sender, stop) = watch::channel(false);
            // Asked for at once and not at the first pause: a signal while a step is written must not cut it.
            tokio::spawn(async move {
                interrupted.await;
                sender.send_replace(true);
            });
            tokio::task::yield_now().await;
            switch(&mut ground, &config, &asked, stop, &mut voice).await
        }
    }
}

/// The names of the servers with these labels, as `NAMESPACE/NAME`.
pub async fn labelled(place: &Place, labels: Selector) -> anyhow::Result<Vec<String>> {
    let mut ground = Ground::open(place).await?;
    let namespace = ground.namespace(place);
    let members = whole(&mut ground).await?;
    let found = Target::Those { of: None, labels: Some(labels) }.of(&members, namespace.as_deref());
    let found = found.map_err(anyhow::Error::msg)?;
    Ok(found.into_iter().map(|at| format!("{}/{}", members[at].namespace, members[at].name)).collect())
}

/// One wish for all targets.
async fn apply(
    ground: &mut Ground,
    config: &Operate,
    target: &Target,
    wish: &Wish,
    voice: &mut Voice,
) -> anyhow::Result<()> {
    let Read { members, problems } = ground.read().await?;
    voice.problems(&problems);
    let targets =
        target.of(&members, ground.namespace(&config.place).as_deref()).map_err(anyhow::Error::msg)?;
    let plan = wish.plan(&members, &targets).map_err(anyhow::Error::msg)?;
    let places = ground.places(&members, &plan.changes).await?;
    if !config.dry_run {
        ground.write(&members, &[&plan.changes]).await?;
    }
    for (change, place) in plan.changes.iter().zip(&places) {
        voice.change(&members[change.member], change, place.as_deref());
    }
    for note in &plan.notes {
        voice.note(note);
    }
    voice.sum(plan.changes.len(), targets.len());
    Ok(())
}

/// What a switch is asked for.
struct Asked<'a> {
    host: &'a str,
    to: &'a Selector,
    percent: u8,
    step: u8,
    every: Duration,
}

impl Asked<'_> {
    fn words(&self, to: &Selector) -> String {
        let Self { host, percent, step, every, .. } = self;
        let seconds = every.as_secs();
        let goal = if *percent == 100 { String::new() } else { format!(" --percent {percent}") };
        format!("tidegate switch {host} --to '{to}'{goal} --step {step} --every {seconds}s")
    }
}

async fn switch(
    ground: &mut Ground,
    config: &Operate,
    asked: &Asked<'_>,
    mut stop: watch::Receiver<bool>,
    voice: &mut Voice,
) -> anyhow::Result<ExitCode> {
    let mut members = whole(ground).await?;
    let namespace = ground.namespace(&config.place);
    let groups = |members: &[Member]| {
        let switch = Switch::of(members, asked.host, asked.to, namespace.as_deref());
        let checked = switch.and_then(|switch| switch.check(members, asked.percent).map(|()| switch));
        checked.map_err(anyhow::Error::msg)
    };
    let mut switch = groups(&members)?;
    voice.begin(&switch, &members, asked.to);
    if asked.percent > 0 {
        let versions = switch.versions(&members).map_err(anyhow::Error::msg)?;
        if !versions.is_empty() {
            carry_out(ground, config, &mut members, &[&versions], voice, None).await?;
            switch = groups(&members)?;
        }
    }
    let mut is_first = true;
    loop {
        let step = switch.step(&members, asked.percent, asked.step);
        if step.is_empty() {
            voice.done(&switch, &members, asked.to, asked.percent);
            return Ok(ExitCode::SUCCESS);
        }
        let is_stopped =
            if is_first || config.dry_run { *stop.borrow() } else { pause(asked.every, &mut stop).await };
        if is_stopped {
            let words = ground.words(&config.place);
            let back = asked.to.inverse().map(|other| asked.words(&other) + &words);
            voice.stopped(&switch, &members, &(asked.words(asked.to) + &words), back.as_deref());
            return Ok(ExitCode::from(INTERRUPTED));
        }
        if !is_first && !config.dry_run {
            // Objects live on while a step waits: servers come, go and drain.
            members = whole(ground).await?;
            switch = groups(&members)?;
        }
        is_first = false;
        let step = switch.step(&members, asked.percent, asked.step);
        let written =
            carry_out(ground, config, &mut members, &[&step.raise, &step.lower], voice, Some(&step.percents))
                .await;
        let written = written.with_context(|| {
            format!(
                "the step was not written whole; what was is kept, and the same command goes on from there: {}{}",
                asked.words(asked.to),
                ground.words(&config.place)
            )
        })?;
        switch = groups(&members)?;
        voice.step(&switch, &members, asked.to, &step, written);
    }
}

/// Returns true when the user has had enough before the time is over.
async fn pause(every: Duration, stop: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stopped| *stopped) => true,
        () = sleep(every) => false,
    }
}

/// The servers, when all could be read: who is not seen can't be weighed against the others.
async fn whole(ground: &mut Ground) -> anyhow::Result<Vec<Member>> {
    let Read { members, problems } = ground.read().await?;
    match problems.first() {
        None => Ok(members),
        Some(first) => Err(anyhow!(
            "{first}; a switch needs to see every server: mend it first ({} such)",
            problems.len()
        )),
    }
}

/// Writes, or shows what would be written, and brings the members up to date.
async fn carry_out(
    ground: &mut Ground,
    config: &Operate,
    members: &mut Vec<Member>,
    parts: &[&[Change]],
    voice: &mut Voice,
    percents: Option<&[u8]>,
) -> anyhow::Result<usize> {
    let changes = parts.concat();
    if config.dry_run {
        let places = ground.places(members, &changes).await.unwrap_or_default();
        for (at, change) in changes.iter().enumerate() {
            let place = places.get(at).and_then(Option::as_deref);
            voice.change_of_step(&members[change.member], change, place, percents);
        }
        *members = plan::applied(members, &changes);
        return Ok(changes.len());
    }
    ground.places(members, &changes).await?;
    let written = ground.write(members, parts).await?;
    *members = whole(ground).await?;
    Ok(written)
}
