//! What the programs of Waypost share to run: how they spawn, listen, log, stop, and report where
//! they listen. Each module stands alone; none depends on what a program serves.

pub mod correlation;
pub mod exit_code;
pub mod listener;
pub mod port_file;
pub mod signals;
pub mod tasks;
pub mod telemetry;
