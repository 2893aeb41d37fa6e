//! The parts that every program of Waypost runs on: tasks, listening, logs, signals, the port file.
//! Each module stands alone; none depends on the service of a program.

pub mod correlation;
pub mod exit_code;
pub mod listener;
pub mod port_file;
pub mod signals;
pub mod tasks;
pub mod telemetry;
