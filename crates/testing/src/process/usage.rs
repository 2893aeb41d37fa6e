//! Resources that a process uses, from `/proc`.

use std::{fs, time::Duration};

/// Returns the resident memory of a process in bytes; `self` is the process that calls.
///
/// # Panics
/// If there is no such process.
pub fn memory_bytes(process: &str) -> u64 {
    let status = read(process, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    let kib: u64 = line.split_whitespace().next().expect("a size").parse().expect("a number");
    kib * 1024
}

/// Returns the CPU time of a process, in user mode and in the kernel.
///
/// # Panics
/// If there is no such process.
pub fn cpu_time(process: &str) -> Duration {
    let stat = read(process, "stat");
    // The name in brackets may contain anything.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    // Linux counts in hundredths of a second, whatever the frequency of its timer.
    Duration::from_millis(ticks * 10)
}

/// Returns how many bytes a process caused to be written to disks.
///
/// # Panics
/// If there is no such process.
pub fn disk_bytes(process: &str) -> u64 {
    let io = read(process, "io");
    let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    bytes.expect("a count").parse().expect("a number")
}

/// Counts the open files and sockets of a process.
///
/// # Panics
/// If there is no such process.
pub fn open_files(process: &str) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).expect("the files of a process").count()
}

fn read(process: &str, file: &str) -> String {
    fs::read_to_string(format!("/proc/{process}/{file}")).expect("a process that runs")
}
