//! CPU and memory of a process, on Linux.

use std::{net::SocketAddr, time::Duration};

/// The CPU time and memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// CPU time in user and kernel mode.
    pub(crate) cpu: Duration,
    /// Resident memory.
    pub(crate) memory_bytes: u64,
}

impl Usage {
    /// Returns the CPU time since an earlier reading.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(earlier.cpu), memory_bytes: self.memory_bytes }
    }
}

/// Reads the usage of a process; `None` if it is not readable.
#[cfg(target_os = "linux")]
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let pid = i32::try_from(pid).ok()?;
    let stat = procfs::process::Process::new(pid).ok()?.stat().ok()?;
    let ticks = (stat.utime + stat.stime) as f64;
    Some(Usage {
        cpu: Duration::from_secs_f64(ticks / procfs::ticks_per_second() as f64),
        memory_bytes: stat.rss * procfs::page_size(),
    })
}

/// Finds the process on this machine that listens on an address; `None` if none is visible.
#[cfg(target_os = "linux")]
pub(crate) fn listening_on(address: SocketAddr) -> Option<u32> {
    use procfs::{
        net::{TcpState, tcp, tcp6},
        process::{FDTarget, all_processes},
    };

    if !address.ip().is_loopback() {
        return None;
    }
    let entries = tcp().ok()?.into_iter().chain(tcp6().unwrap_or_default());
    let inode = entries
        .filter(|entry| entry.state == TcpState::Listen)
        .find(|entry| {
            let local = entry.local_address;
            let everywhere = local.ip().is_unspecified();
            local.port() == address.port() && (everywhere || local.ip() == address.ip())
        })?
        .inode;
    let holds = |process: &procfs::process::Process| {
        process.fd().is_ok_and(|files| {
            files.flatten().any(|file| matches!(file.target, FDTarget::Socket(it) if it == inode))
        })
    };
    let found = all_processes().ok()?.flatten().find(holds)?;
    u32::try_from(found.pid).ok()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn usage(_pid: u32) -> Option<Usage> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn listening_on(_address: SocketAddr) -> Option<u32> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn process_behind_an_address_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(listening_on(address), Some(std::process::id()));
        assert!(usage(std::process::id()).unwrap().memory_bytes > 0);
        drop(listener);
        assert_eq!(listening_on(address), None);
    }
}
