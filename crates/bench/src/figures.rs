//! The figures of one round of a workload.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::{error::BenchCallError, process::Usage};

/// One figure of one round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

/// The figures of one round, in the order of the report.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) figures: Vec<Figure>,
    /// Notes for the reader, such as the first error.
    pub(crate) notes: Vec<String>,
}

impl Figures {
    pub(crate) fn push(&mut self, name: &'static str, unit: &'static str, value: f64) {
        self.figures.push(Figure { name, unit, value });
    }

    /// Notes the first error.
    pub(crate) fn note_first(&mut self, error: Option<&BenchCallError>) {
        self.notes.extend(error.map(|error| format!("the first error: {error}")));
    }

    /// Adds the quantiles that every workload reports.
    pub(crate) fn push_latencies(&mut self, micros: &Histogram<u64>) {
        let millis = |micros: u64| micros as f64 / 1000.0;
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            self.push(name, "ms", millis(micros.value_at_quantile(quantile)));
        }
        self.push("max", "ms", millis(micros.max()));
    }

    /// Adds the cost of the server's process, if it is readable, and that of the load.
    pub(crate) fn push_cost(
        &mut self,
        server: Option<Usage>,
        load: Usage,
        time: Duration,
        done: u64,
    ) {
        let cores = |cpu: Duration| cpu.as_secs_f64() / time.as_secs_f64();
        if let Some(server) = server {
            self.push("server CPU", "cores", cores(server.cpu));
            if done > 0 {
                let micros = server.cpu.as_secs_f64() * 1e6 / done as f64;
                self.push("server CPU each", "µs", micros);
            }
            self.push("server memory", "MB", server.memory_bytes as f64 / 1e6);
        }
        self.push("load CPU", "cores", cores(load.cpu));
    }
}
