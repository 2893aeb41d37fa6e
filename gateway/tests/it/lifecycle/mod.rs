//! Start, reload and shutdown, the port of operators, idle connections.

mod exit_codes;
mod idle;
mod operators;
mod reload;
mod shutdown;
