//! Credentials on the command line: the `certificates` that `waypost ca` issues, and commands that
//! use credentials over `tls`.

mod certificates;
mod tls;
