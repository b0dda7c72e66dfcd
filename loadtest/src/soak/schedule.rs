//! What is done to the fleet and what breaks, and when: a pure function of the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use fastrand::Rng;

use super::world::{Change, Door, World};

/// A server whose file is gone runs on for so long, for those inside. Milliseconds.
const LINGER: Range<u64> = 2_000..15_000;
/// A door that was closed, a file that was spoiled or a rival stays so for so long. Milliseconds.
const SPELL: Range<u64> = 1_500..8_000;
/// How many servers come or go in a wave.
const WAVE: Range<u32> = 4..16;

/// What a schedule is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Servers at the beginning; there will always be about as many.
    pub(crate) servers: u32,
    /// Changes of files a minute.
    pub(crate) per_minute: u32,
    pub(crate) length_ms: u64,
}

/// A change and its time, from the beginning of the churn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at_ms: u64,
    pub(crate) change: Change,
}

/// All changes, in order.
pub(crate) fn changes(plan: Plan) -> Vec<Step> {
    let mut maker = Maker {
        random: Rng::with_seed(plan.seed),
        world: World::of(plan.servers),
        plan,
        busy: BTreeSet::new(),
        due: BTreeMap::new(),
        next: plan.servers,
        written: 0,
        steps: Vec::new(),
    };
    // In steps of a change: what is owed by then is done, and a wave is paid for by a pause behind it.
    let mut owed = 0;
    loop {
        owed += 1;
        let at = u64::from(owed) * 60_000 / u64::from(plan.per_minute.max(1));
        if at >= plan.length_ms {
            return maker.steps;
        }
        maker.follow_up(at);
        if maker.written < owed {
            maker.begin(at);
        }
    }
}

/// The same in rounds of this length, each from its own beginning; what is left over belongs to the last.
pub(crate) fn in_rounds(steps: Vec<Step>, count: usize, length_ms: u64) -> Vec<Vec<Step>> {
    let mut rounds = vec![Vec::new(); count.max(1)];
    for Step { at_ms, change } in steps {
        let number = usize::try_from(at_ms / length_ms.max(1)).unwrap_or(usize::MAX).min(rounds.len() - 1);
        let begin = length_ms * number as u64;
        rounds[number].push(Step { at_ms: at_ms - begin, change });
    }
    rounds
}

struct Maker {
    plan: Plan,
    random: Rng,
    world: World,
    /// Servers that something is being done to.
    busy: BTreeSet<u32>,
    /// What must follow, by time; those of a time in the order in which they were thought of.
    due: BTreeMap<(u64, u32), Change>,
    /// The number that nobody had so far.
    next: u32,
    /// Files written.
    written: u32,
    steps: Vec<Step>,
}

impl Maker {
    fn make(&mut self, at_ms: u64, change: Change) {
        self.world.apply(change);
        self.written += u32::from(!matches!(change, Change::Stop(_)));
        self.steps.push(Step { at_ms, change });
    }

    fn later(&mut self, at: u64, within: Range<u64>, change: Change) {
        let at = at + self.random.u64(within);
        let number = self.fresh();
        self.due.insert((at, number), change);
    }

    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    fn follow_up(&mut self, now: u64) {
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= now
        {
            let ((at, _), change) = entry.remove_entry();
            let over = match change {
                Change::Open(n) | Change::Mend(n) | Change::Stop(n) => Some(n),
                Change::Yield(rival) => self.world.rivals.get(&rival).copied(),
                _ => None,
            };
            self.make(at, change);
            if let Some(n) = over {
                self.busy.remove(&n);
            }
        }
    }

    /// A server that nothing is being done to.
    fn idle(&mut self) -> Option<u32> {
        let is_idle = |n: &u32| !self.busy.contains(n);
        let idle: Vec<_> = self.world.servers.keys().copied().filter(is_idle).collect();
        (!idle.is_empty()).then(|| idle[self.random.usize(..idle.len())])
    }

    fn begin(&mut self, at: u64) {
        let what = self.random.u32(..1000);
        let Some(n) = self.idle() else { return self.wave(at) };
        match what {
            0..390 => self.make(at, Change::Edit(n)),
            390..560 => self.make(at, Change::Touch(n)),
            560..690 => self.make(at, Change::Move(n)),
            690..780 => {
                // Weights count where there is a share.
                let shared: Vec<_> =
                    self.world.servers.keys().copied().filter(|n| n.is_multiple_of(20)).collect();
                let n = shared.get(self.random.usize(..shared.len().max(1))).copied().unwrap_or(n);
                let weight = [1, 50, 100, 100, 300, 1000][self.random.usize(..6)];
                if !self.busy.contains(&n) {
                    self.make(at, Change::Weigh(n, weight));
                }
            }
            780..870 => {
                let doors = [Door::Drained, Door::Draining, Door::Maintenance, Door::Misconfigured];
                let door = doors[self.random.usize(..4)];
                self.spell(at, n, Change::Close(n, door), Change::Open(n));
            }
            870..900 => self.make(at, Change::Restart(n)),
            900..930 => {
                // Nothing else happens to the envied one: what he gave up, the rival would rightly get.
                let rival = self.fresh();
                self.spell(at, n, Change::Rival { rival, of: n }, Change::Yield(rival));
            }
            930..945 => {
                let litter = self.fresh();
                self.make(at, Change::Litter(litter));
                self.later(at, SPELL, Change::Clear(litter));
            }
            945..960 => self.spell(at, n, Change::Garble(n), Change::Mend(n)),
            960..980 => self.spell(at, n, Change::Misspell(n), Change::Mend(n)),
            _ => self.wave(at),
        }
    }

    fn spell(&mut self, at: u64, n: u32, begin: Change, end: Change) {
        self.busy.insert(n);
        self.make(at, begin);
        self.later(at, SPELL, end);
    }

    /// Servers come, or go, all at once.
    fn wave(&mut self, at: u64) {
        let (now, wanted) = (u32::try_from(self.world.listed()).unwrap_or(u32::MAX), self.plan.servers);
        let room = wanted / 8 + 1;
        let is_up = now + room < wanted || (now < wanted + room && self.random.bool());
        let size = self.random.u32(WAVE).min(wanted / 4 + 1);
        for _ in 0..size {
            if is_up {
                let n = self.fresh();
                self.make(at, Change::Come(n));
            } else if let Some(n) = self.idle() {
                self.busy.insert(n);
                self.make(at, Change::Leave(n));
                self.later(at, LINGER, Change::Stop(n));
            }
        }
    }
}

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// kill -9 of every control plane, and a restart two seconds later
    Kill,
    /// kill -9 of the control plane that Envoy has; the other takes over
    Takeover,
    /// Every stream ends with an error
    Reset,
    /// For two seconds nothing passes between Envoy and the control planes
    Pause,
    /// For two seconds the fleet directory is not there
    Away,
    /// Envoy is sent scopes that it must refuse
    Nack,
}

impl Fault {
    /// Until the next may break, at most: with the start of what was killed. Milliseconds.
    fn lasts_ms(self) -> u64 {
        match self {
            Self::Kill | Self::Takeover => 3_000,
            Self::Reset => 100,
            Self::Pause | Self::Away => 2_100,
            Self::Nack => 4_600,
        }
    }
}

/// How long what breaks from one crash to the next takes at most.
pub(crate) fn once_ms(kinds: &[Fault]) -> u64 {
    let kinds: BTreeSet<_> = kinds.iter().copied().collect();
    // The two crashes take turns.
    let twice = kinds.contains(&Fault::Kill) && kinds.contains(&Fault::Takeover);
    let all: u64 = kinds.into_iter().map(Fault::lasts_ms).sum();
    if twice { all - Fault::Takeover.lasts_ms() } else { all }
}

/// When the last of these is over, as each waits for the one before.
pub(crate) fn ends_ms(faults: &[(u64, Fault)]) -> u64 {
    faults.iter().fold(0, |end, (at, fault)| end.max(*at) + fault.lasts_ms())
}

/// What breaks, and when from the beginning of the churn. A crash each `every_ms`, in turn of all and of one; the
/// others in between.
pub(crate) fn faults(seed: u64, kinds: &[Fault], every_ms: u64, length_ms: u64) -> Vec<(u64, Fault)> {
    let mut random = Rng::with_seed(seed ^ 0x5EED);
    let has = |kinds: &[Fault], fault| kinds.contains(&fault);
    let crashes: Vec<_> =
        [Fault::Kill, Fault::Takeover].into_iter().filter(|fault| has(kinds, *fault)).collect();
    let mut others: Vec<_> =
        [Fault::Reset, Fault::Pause, Fault::Nack].into_iter().filter(|fault| has(kinds, *fault)).collect();
    let away: Vec<_> = has(kinds, Fault::Away).then_some(Fault::Away).into_iter().collect();
    let mut faults = Vec::new();
    for turn in 1.. {
        let at = turn * every_ms;
        // What breaks last must be well again before the end.
        if at + every_ms / 2 > length_ms {
            break;
        }
        if !crashes.is_empty() {
            let crash = usize::try_from(turn - 1).unwrap_or_default() % crashes.len();
            faults.push((at, crashes[crash]));
        }
        random.shuffle(&mut others);
        let slot = every_ms / 8;
        // A directory that is back is believed after up to ten seconds of churn, in which nothing is sent and
        // nothing else could be seen to break: it is the last.
        for (number, fault) in (0..).zip(others.iter().chain(&away)) {
            // The first quarter belongs to the crash.
            let at = at + 2 * slot + number * slot * 6 / 4 + random.u64(..=slot / 2);
            if at + every_ms / 4 < length_ms {
                faults.push((at, *fault));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { seed: 7, servers: 200, per_minute: 1000, length_ms: 120_000 };

    #[test]
    fn what_breaks_waits_for_what_broke_before() {
        assert_eq!(ends_ms(&[]), 0);
        assert_eq!(ends_ms(&[(1_000, Fault::Kill), (2_000, Fault::Pause), (9_000, Fault::Reset)]), 9_100);
        assert_eq!(ends_ms(&[(1_000, Fault::Kill), (2_000, Fault::Pause)]), 6_100);
        assert_eq!(once_ms(&[Fault::Takeover, Fault::Kill, Fault::Kill, Fault::Reset]), 3_100);
    }

    #[test]
    fn a_seed_is_a_schedule_and_another_seed_another() {
        assert_eq!(changes(PLAN), changes(PLAN));
        assert_ne!(changes(PLAN), changes(Plan { seed: 8, ..PLAN }));
        let faults = |seed| faults(seed, &[Fault::Kill, Fault::Reset, Fault::Nack], 20_000, 120_000);
        assert_eq!(faults(1), faults(1));
        assert_ne!(faults(1), faults(2));
    }

    #[test]
    fn rounds_are_the_schedule_each_from_its_own_beginning() {
        let steps = changes(PLAN);
        for (count, length_ms) in [(1, 120_000), (3, 40_000), (7, 17_142)] {
            let rounds = in_rounds(steps.clone(), count, length_ms);
            assert_eq!(rounds.len(), count);
            let again: Vec<_> = (0..)
                .zip(&rounds)
                .flat_map(|(number, round)| {
                    round.iter().map(move |step| Step { at_ms: step.at_ms + number * length_ms, ..*step })
                })
                .collect();
            assert_eq!(again, steps);
            let is_short = |round: &Vec<Step>| round.iter().all(|step| step.at_ms < length_ms + count as u64);
            assert!(rounds.iter().all(is_short), "{count} of {length_ms} ms");
        }
        assert_eq!(in_rounds(Vec::new(), 0, 0), [[]; 1]);
    }

    #[test]
    fn there_are_as_many_changes_as_asked_for_in_order_and_of_every_kind() {
        let steps = changes(PLAN);
        assert!(steps.is_sorted_by_key(|step| step.at_ms), "in order");
        let written = steps.iter().filter(|step| !matches!(step.change, Change::Stop(_))).count();
        assert!((1900..=2040).contains(&written), "{written}");
        let kinds: BTreeSet<_> = steps
            .iter()
            .map(|step| {
                let text = format!("{:?}", step.change);
                text.split(['(', ' ']).next().unwrap_or_default().to_owned()
            })
            .collect();
        assert_eq!(kinds.len(), 17, "{kinds:?}");
        assert!(changes(Plan { servers: 1, ..PLAN }).len() > 100, "a fleet of one is no special case");
        assert!(changes(Plan { per_minute: 0, ..PLAN }).len() < 20);
    }

    /// The oracle counts on it: who is inside a server falls only with that server, and no server is stopped
    /// while its file still says that it is there.
    #[test]
    fn a_server_loses_its_file_long_before_it_ends_and_a_name_is_never_used_again() {
        let (mut left, mut came) = (BTreeMap::new(), BTreeSet::new());
        for Step { at_ms, change } in changes(Plan { length_ms: 600_000, ..PLAN }) {
            match change {
                Change::Come(n) => assert!(n >= PLAN.servers && came.insert(n), "{n} comes twice"),
                Change::Leave(n) => assert!(left.insert(n, at_ms).is_none(), "{n} leaves twice"),
                Change::Stop(n) => assert!(at_ms >= left[&n] + LINGER.start, "{n} stops early"),
                Change::Edit(n) | Change::Restart(n) | Change::Garble(n) => {
                    assert!(!left.contains_key(&n), "{n} is gone");
                }
                _ => {}
            }
        }
        assert!(left.len() > 50 && came.len() > 50, "{} left, {} came", left.len(), came.len());
    }

    #[test]
    fn the_fleet_stays_about_as_large_as_it_was() {
        let mut world = World::of(PLAN.servers);
        for step in changes(Plan { length_ms: 600_000, ..PLAN }) {
            world.apply(step.change);
            assert!((150..=250).contains(&world.listed()), "{}", world.listed());
        }
    }

    #[test]
    fn faults_leave_each_other_room_and_end_before_the_run() {
        let all = [Fault::Kill, Fault::Takeover, Fault::Reset, Fault::Pause, Fault::Away, Fault::Nack];
        let faults = faults(3, &all, 20_000, 120_000);
        assert!(faults.windows(2).all(|pair| pair[1].0 >= pair[0].0 + 2_000), "{faults:?}");
        for fault in all {
            assert!(faults.iter().filter(|(_, of)| *of == fault).count() >= 2, "{fault:?} in {faults:?}");
        }
        assert!(faults.last().is_some_and(|(at, _)| *at < 116_000), "{faults:?}");
        assert!(super::faults(3, &[], 20_000, 120_000).is_empty());
    }
}
