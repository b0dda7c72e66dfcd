//! The machine that is measured on, and what a process has cost so far, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What figures depend on.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Machine {
    pub(crate) model: String,
    pub(crate) cores: usize,
    pub(crate) memory_mb: u64,
    pub(crate) kernel: String,
    /// Processes that wanted a core in the minute before: above 0.5 the machine had other work.
    pub(crate) load_before: String,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            model: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mb: memory("MemTotal:").unwrap_or_default() / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            load_before: fs::read_to_string("/proc/loadavg")
                .unwrap_or_default()
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// Memory that could be taken, in MB.
pub(crate) fn free_mb() -> Option<u64> {
    Some(memory("MemAvailable:")? / 1024)
}

/// A line of `/proc/meminfo`, in KB.
fn memory(name: &str) -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Resident memory of a process, in KB.
pub(crate) fn resident_kb(pid: u32) -> anyhow::Result<u64> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    kilobytes(&text, "VmRSS:").with_context(|| format!("{file} has no VmRSS"))
}

/// Memory of a process in KB, with its part of what it shares with others (PSS); its resident memory where the kernel does
/// not tell that, and nothing where there is no such process.
pub(crate) fn proportional_kb(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let proportional = text.as_deref().and_then(|text| kilobytes(text, "Pss:"));
    proportional.or_else(|| resident_kb(pid).ok()).unwrap_or_default()
}

/// The processes whose parent is this one, zombies left out.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten();
    let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let parent = parent.to_string();
    pids.filter(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // State and parent stand behind the program's name, which is in brackets and may have spaces.
        let mut behind = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        behind.next() != Some("Z") && behind.next() == Some(&parent)
    })
    .collect()
}

/// CPU time of a process. By the scheduler's own count, in nanoseconds, of the threads that are alive; where
/// the kernel keeps none, by user and system ticks.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let folder = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&folder).with_context(|| folder.clone())?;
    let spent = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    match spent.sum() {
        0 => ticks(pid),
        nanos => Ok(Duration::from_nanos(nanos)),
    }
}

fn ticks(pid: u32) -> anyhow::Result<Duration> {
    let file = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    // The name of the program, in brackets, may have spaces. Behind it utime and stime are the 12th and 13th,
    // in ticks of 10 ms (USER_HZ is 100 on every Linux).
    let behind = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 =
        behind.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(10 * ticks))
}

/// CPU time of this thread; nothing where the kernel does not count it.
pub(crate) fn own_thread_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_cpu() {
        let own = std::process::id();
        assert!(resident_kb(own).unwrap() > 100);
        let before = cpu(own).unwrap();
        let mut x = 1_u64;
        for i in 0..50_000_000_u64 {
            x = std::hint::black_box(x.wrapping_mul(i | 1));
        }
        assert!(cpu(own).unwrap() > before && ticks(own).is_ok());
        assert!(free_mb().unwrap() > 0);
    }
}
