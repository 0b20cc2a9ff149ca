//! The result of a run in one process or in several.
//!
//! Rule: merged, the shares of processes are what one process would have measured: sums where each
//! saw a part, the largest where each saw the whole.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::shared::histogram;
use crate::shared::process::Spent;

/// The result of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) deliveries: u64,
    pub(crate) spent: Spent,
    /// Nanoseconds from sending to the last receiver; at a rate, from the moment a message is due
    /// to each receiver.
    #[serde(with = "histogram")]
    pub(crate) latency: Histogram<u64>,
    /// More, if messages were sent at a rate.
    pub(crate) open_loop: Option<OpenLoop>,
    pub(crate) faults: Vec<String>,
}

/// What only a run at a rate has.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OpenLoop {
    /// Nanoseconds from the moment each message is due to its last receiver, by number; 0 if one is
    /// missing.
    pub(crate) last: Vec<u64>,
    /// How late the client was: nanoseconds from the moment a message is due until it was sent.
    #[serde(with = "histogram")]
    pub(crate) lag: Histogram<u64>,
}

impl Outcome {
    /// Merges the result of another process's share of the same plan.
    pub(crate) fn merge(&mut self, other: Self) -> Result<()> {
        self.deliveries += other.deliveries;
        // Each process counted the other ones of this program among the rest of the machine.
        let Spent { elapsed, server_cpu, store_cpu, client_cpu, others_cpu } = &mut self.spent;
        *others_cpu = (*others_cpu)
            .min(other.spent.others_cpu + *client_cpu)
            .saturating_sub(other.spent.client_cpu);
        *client_cpu += other.spent.client_cpu;
        *elapsed = (*elapsed).max(other.spent.elapsed);
        *server_cpu = (*server_cpu).max(other.spent.server_cpu);
        *store_cpu = (*store_cpu).max(other.spent.store_cpu);
        self.faults.extend(other.faults);
        self.latency.add(&other.latency)?;
        if let (Some(ours), Some(theirs)) = (&mut self.open_loop, &other.open_loop) {
            ours.lag.add(&theirs.lag)?;
            for (last, other) in ours.last.iter_mut().zip(&theirs.last) {
                *last = if *last == 0 || *other == 0 { 0 } else { (*last).max(*other) };
            }
        }
        Ok(())
    }
}
