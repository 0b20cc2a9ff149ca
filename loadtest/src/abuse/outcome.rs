//! The result of a flood, and whether anybody was harmed.

use anyhow::Result;

use super::floods::Flood;
use super::innocents::Seen;
use crate::shared::output;

/// The innocents' p99 may be this multiple of that beside the same flood at another node.
const SLOWER: f64 = 2.0;
/// Below this, in milliseconds, nobody notices, and the scheduler of a busy machine decides.
const NOTICED: f64 = 10.0;
/// A node's memory limit: its budget, the same again for what the budget only estimates, and the
/// node itself.
const MEMORY: u64 = 2 * (128 << 20) + (64 << 20);

/// The result of a flood.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Milliseconds.
    elsewhere: f64,
    here: f64,
    messages: u64,
    peak: u64,
    counted: String,
    pub(super) faults: Vec<String>,
}

impl Outcome {
    /// Judges a flood; a short run measures too little to judge latency.
    pub(super) fn judge(
        flood: &Flood,
        is_short: bool,
        (seen, lives, recovered): (&Seen, bool, Result<()>),
        peak: u64,
        changes: &[(String, u64)],
    ) -> Self {
        let p99 = |phase: usize| {
            let histogram = seen.latency.get(phase).and_then(Option::as_ref);
            histogram.map_or((0.0, 0), |one| (one.value_at_quantile(0.99) as f64 / 1e6, one.len()))
        };
        let ((elsewhere, before), (here, messages)) = (p99(0), p99(1));
        let mut faults = seen.harmed.clone();
        if !lives {
            faults.push("the node ended".to_owned());
        }
        if let Err(error) = recovered {
            faults.push(format!("{error:#}"));
        }
        if before == 0 || messages == 0 {
            faults.push("nothing was measured".to_owned());
        }
        if !is_short && here > NOTICED && here > SLOWER * elsewhere {
            faults.push(format!("p99 {here:.1} ms instead of {elsewhere:.1} ms"));
        }
        if peak > MEMORY {
            faults.push(format!("{} MiB of memory", peak >> 20));
        }
        let counted: Vec<_> =
            changes.iter().map(|(name, count)| format!("{} {count}", short(name))).collect();
        if flood.is_counted && counted.is_empty() {
            faults.push("nothing of it was counted".to_owned());
        }
        Self { elsewhere, here, messages, peak, counted: counted.join("; "), faults }
    }

    pub(super) fn verdict(&self) -> String {
        if self.faults.is_empty() { "nobody was harmed".to_owned() } else { self.faults.join("; ") }
    }
}

fn short(name: &str) -> String {
    name.trim_start_matches("gatecast_").replace("_total", "")
}

/// Prints the table.
pub(super) fn print(outcomes: &[(&str, Outcome)]) -> Result<()> {
    let mut text = String::from(
        "| flood | innocents' messages | p99 beside it at another node, ms | p99, ms | memory at most, MiB | counted | verdict |\n\
         |---|---:|---:|---:|---:|---|---|\n",
    );
    for (name, outcome) in outcomes {
        let Outcome { elsewhere, here, messages, peak, counted, .. } = outcome;
        let (mib, verdict) = (peak >> 20, outcome.verdict());
        text += &format!(
            "| `{name}` | {messages} | {elsewhere:.1} | {here:.1} | {mib} | {counted} | {verdict} |\n"
        );
    }
    output::print(&text)
}
