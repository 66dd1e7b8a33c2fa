//! What Linux says about a process: the CPU time it spent, what others took of its core, the memory it holds, its
//! children.

use std::{collections::HashMap, fs};

/// Ticks of `/proc/PID/stat` in a second: fixed at 100 in the kernel's interface to programs.
const TICK: u64 = 1_000_000_000 / 100;

/// The CPU time of some processes at one moment.
pub struct Cpu {
    threads: HashMap<u32, u64>,
    ticks: u64,
}

impl Cpu {
    /// Reads the clocks of all threads of these processes.
    pub fn read(pids: &[u32]) -> Result<Self, String> {
        let mut cpu = Self { threads: HashMap::new(), ticks: 0 };
        for pid in pids {
            cpu.ticks += ticks(*pid)?;
            let threads = fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| gone(*pid, &error))?;
            for thread in threads.flatten() {
                let spent = fs::read_to_string(thread.path().join("schedstat")).ok().and_then(|text| text.split(' ').next()?.parse().ok());
                if let (Some(spent), Some(id)) = (spent, thread.file_name().to_str().and_then(|name| name.parse().ok())) {
                    cpu.threads.insert(id, spent);
                }
            }
        }
        Ok(cpu)
    }

    /// Seconds spent since `earlier`. The threads' own clocks count nanoseconds but vanish with their threads (and may
    /// be missing from a kernel), the process's clock keeps all but counts in hundredths: so the finer one is taken,
    /// unless the coarser one says by more than its error that something was missed.
    pub fn seconds_since(&self, earlier: &Self) -> f64 {
        let fine: u64 = self.threads.iter().map(|(id, spent)| spent.saturating_sub(earlier.threads.get(id).copied().unwrap_or(0))).sum();
        let coarse = self.ticks.saturating_sub(earlier.ticks) * TICK;
        let taken = if coarse > fine + 2 * TICK { coarse } else { fine };
        taken as f64 / 1e9
    }
}

/// What one core did up to one moment, in ticks.
#[derive(Debug, Clone, Copy)]
pub struct Core {
    busy: u64,
    stolen: u64,
}

impl Core {
    /// Reads the clocks of a core.
    pub fn read(core: usize) -> Result<Self, String> {
        let text = fs::read_to_string("/proc/stat").map_err(|error| format!("/proc/stat: {error}"))?;
        let name = format!("cpu{core} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).ok_or_else(|| format!("there is no core {core}"))?;
        let fields = line.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect::<Vec<u64>>();
        match fields[..] {
            [user, nice, system, _idle, _wait, irq, softirq, stolen, ..] => Ok(Self { busy: user + nice + system + irq + softirq, stolen }),
            _ => Err("/proc/stat has fewer fields than expected".into()),
        }
    }

    /// Seconds that went to other processes than those who spent `own`, or to other guests of the same host.
    pub fn taken_since(self, earlier: Self, own: f64) -> f64 {
        let seconds = |ticks: u64| (ticks * TICK) as f64 / 1e9;
        let others = seconds(self.busy.saturating_sub(earlier.busy)) - own;
        others.max(0.0) + seconds(self.stolen.saturating_sub(earlier.stolen))
    }
}

/// User and system time, all threads, also those that have ended.
fn ticks(pid: u32) -> Result<u64, String> {
    let fields = stat(pid).map_err(|error| gone(pid, &error))?;
    Ok(fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// The fields behind the name, which may itself hold spaces and brackets; the first is the state.
fn stat(pid: u32) -> std::io::Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    Ok(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

fn gone(pid: u32, error: &std::io::Error) -> String {
    format!("process {pid} cannot be watched, it may have ended: {error}")
}

/// Resident memory in bytes.
pub fn resident(pid: u32) -> Result<u64, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| gone(pid, &error))?;
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.map(|count| count * 1024).ok_or_else(|| format!("process {pid} has no VmRSS: it has ended"))
}

/// The processes that this one has started and that still run.
pub fn children(pid: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| stat(*id).is_ok_and(|fields| fields.get(1).is_some_and(|parent| *parent == pid.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn this_process_can_be_watched() {
        let me = [std::process::id()];
        let before = Cpu::read(&me).unwrap();
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until {}
        let spent = Cpu::read(&me).unwrap().seconds_since(&before);
        assert!(spent > 0.005, "{spent}");
        assert!(resident(me[0]).unwrap() > 100_000);
        assert!(children(me[0]).is_empty());
        assert!(Cpu::read(&[u32::MAX]).is_err());
    }

    #[test]
    fn what_others_took_is_what_nobody_else_spent() {
        let (before, after) = (Core { busy: 100, stolen: 5 }, Core { busy: 180, stolen: 15 });
        assert!((after.taken_since(before, 0.5) - 0.4).abs() < 1e-9);
        assert!((after.taken_since(before, 0.9) - 0.1).abs() < 1e-9);
        assert!(Core::read(0).is_ok() && Core::read(usize::MAX).is_err());
    }
}
