//! The operators' commands: game servers drained, put into maintenance, weighed, and a host's players switched over.
//!
//! They change what stands on the objects, in files or in a cluster, and never ask a control plane, which only reads
//! it. What is to change is decided by `plan`; here it is read, shown and written.

use std::collections::BTreeSet;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::cli::{self, Action, Operate, Place};
use crate::plan::{self, Change, Member, Name, Selector, Switch, Target, Wish};

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
    /// `said` are the namespaces that the targets name; none stands for those who name none.
    async fn open(place: &Place, said: &BTreeSet<Option<String>>) -> anyhow::Result<Self> {
        Ok(match &place.ground {
            cli::Ground::Files { dir, max_file_bytes } => Self::Files(Files {
                dir: dir.clone(),
                rules: place.rules.clone(),
                max_file_bytes: *max_file_bytes,
            }),
            cli::Ground::Kube { managers } => {
                Self::Cluster(Box::new(Cluster::open(place, managers, said).await?))
            }
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
}

/// How a command says where servers stand.
fn place_words(place: &Place) -> String {
    let mut words = match &place.ground {
        cli::Ground::Files { dir, .. } => vec!["--fleet".to_owned(), dir.display().to_string()],
        cli::Ground::Kube { .. } => vec!["--kube".to_owned()],
    };
    if let Some(namespace) = &place.namespace {
        words.extend(["-n".to_owned(), namespace.clone()]);
    }
    if place.all_namespaces {
        words.push("-A".to_owned());
    }
    words.extend(place.reading.iter().cloned());
    words.iter().fold(String::new(), |all, word| all + " " + &quoted(word))
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Does what was asked for. `interrupted` returns when the user has had enough.
pub async fn run(
    config: Operate,
    interrupted: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<ExitCode> {
    let said = match &config.action {
        Action::Wish { target: Target::Names(names), .. } => spaces(names),
        Action::Wish { .. } | Action::Switch { .. } => [None].into(),
    };
    let mut ground = Ground::open(&config.place, &said).await?;
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

/// The namespaces that these names say, none for those that say none.
fn spaces(names: &[Name]) -> BTreeSet<Option<String>> {
    names.iter().map(|name| name.namespace.clone()).collect()
}

/// The names of the servers with these labels, as `NAMESPACE/NAME`; where fleets are named, of those alone.
pub async fn labelled(place: &Place, labels: &Selector, fleets: &[Name]) -> anyhow::Result<Vec<String>> {
    let said: BTreeSet<_> = if fleets.is_empty() { [None].into() } else { spaces(fleets) };
    let mut ground = Ground::open(place, &said).await?;
    let own = ground.namespace(place);
    let members = whole(&mut ground).await?;
    let mut wanted: Vec<_> =
        fleets.iter().map(|fleet| (Some(&fleet.name), fleet.namespace.as_ref())).collect();
    if wanted.is_empty() {
        wanted.push((None, None));
    }
    let mut found = BTreeSet::new();
    for (fleet, namespace) in wanted {
        let those = Target::Those { of: fleet.cloned(), labels: Some(labels.clone()) };
        let those = those.of(&members, namespace.or(own.as_ref()).map(String::as_str));
        found.extend(those.map_err(anyhow::Error::msg)?);
    }
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
    fn words(&self, to: &Selector, percent: u8, place: &Place) -> String {
        let Self { host, step, every, .. } = self;
        let goal = if percent == 100 { String::new() } else { format!(" --percent {percent}") };
        let every = if every.subsec_nanos() == 0 {
            format!("{}s", every.as_secs())
        } else {
            format!("{every:?}") // 500ms, 1.5s
        };
        format!(
            "tidegate switch {} --to '{to}'{goal} --step {step} --every {every}{}",
            quoted(host),
            place_words(place)
        )
    }

    /// The command that goes on.
    fn on(&self, place: &Place) -> String {
        self.words(self.to, self.percent, place)
    }

    /// The command that goes back: all new players to the group that they are moved from. How they were shared before
    /// stands nowhere, and whoever goes back wants nobody more to come to the other. None where no selector says that group.
    fn back(&self, falls: bool, place: &Place) -> Option<String> {
        let from = if falls { Some(self.to.clone()) } else { self.to.inverse() };
        from.map(|from| self.words(&from, 100, place))
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
    // Fewer of the new players are asked for than the matching group gets now: it is the one that they are moved from.
    let falls = switch.present(&members).iter().all(|present| *present > f64::from(asked.percent));
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
            let back = asked.back(falls, &config.place);
            voice.stopped(&switch, &members, &asked.on(&config.place), back.as_deref());
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
                "the step was not written whole; what was is kept, and the same command goes on from there: {}",
                asked.on(&config.place)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kinds::{Manager, Rules};

    fn place(ground: cli::Ground, reading: &[&str]) -> Place {
        let reading = reading.iter().map(|word| (*word).to_owned()).collect();
        Place { ground, namespace: None, all_namespaces: false, rules: Rules::default(), reading }
    }

    fn files(dir: &str) -> Place {
        place(cli::Ground::Files { dir: dir.into(), max_file_bytes: 1 }, &[])
    }

    #[test]
    fn the_way_back_is_all_of_the_new_players_to_those_whom_they_came_from() {
        let to: Selector = "version=v2".parse().unwrap();
        let asked =
            |percent| Asked { host: "play.x", to: &to, percent, step: 10, every: Duration::from_secs(30) };
        let place = files("fleet");
        let rest = "--step 10 --every 30s --fleet fleet";
        assert_eq!(
            asked(10).on(&place),
            format!("tidegate switch play.x --to 'version=v2' --percent 10 {rest}")
        );
        let back = |percent, falls| asked(percent).back(falls, &place).unwrap();
        assert_eq!(back(10, false), format!("tidegate switch play.x --to 'version!=v2' {rest}"));
        assert_eq!(back(10, true), format!("tidegate switch play.x --to 'version=v2' {rest}"));
        let two: Selector = "version=v2,region=eu".parse().unwrap();
        assert_eq!(Asked { to: &two, ..asked(10) }.back(false, &place), None);
    }

    #[test]
    fn a_printed_command_means_what_was_typed() {
        let to: Selector = "version=v2".parse().unwrap();
        let words =
            |host, every, place: &Place| Asked { host, to: &to, percent: 100, step: 5, every }.on(place);
        let (half, long) = (Duration::from_millis(500), Duration::from_millis(90_500));
        assert!(words("a.x", half, &files("f")).contains(" --every 500ms "));
        assert!(words("a.x", long, &files("f")).contains(" --every 90.5s "));
        for every in ["500ms", "90.5s", "0s"] {
            assert!(every.parse::<jiff::SignedDuration>().is_ok(), "{every} is read again");
        }
        let spaced = words("a.x/p", half, &files("/srv/my fleet's"));
        assert!(spaced.ends_with(r" --fleet '/srv/my fleet'\''s'"), "{spaced}");
        let kube = cli::Ground::Kube { managers: Manager::ALL.into() };
        let reading = ["--config", "tidegate.yaml", "--host-template", "<name>.x", "--ingress-class", ""];
        let kube = Place { namespace: Some("eu".into()), ..place(kube, &reading) };
        let all = words("a.x", half, &kube);
        let wanted = " --kube -n eu --config tidegate.yaml --host-template '<name>.x' --ingress-class ''";
        assert!(all.ends_with(wanted), "{all}");
    }
}
