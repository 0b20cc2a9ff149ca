//! One measured run: keeps a window of messages under way and counts each delivery.
//!
//! Rule: a message is done when every connection of its group has it; only then is the next one sent, unless the plan has
//! a rate: then each is sent when it is due, and its latency counts from that moment, however late it could be sent. The
//! server is whatever `emit` hands a message to, so that the floor and a gateway are measured by the same code.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::conn::Incoming;
use crate::fleet::Fleet;
use crate::payload::Payloads;
use crate::process::{Meter, Processes, Spent};
use crate::random::Random;
use crate::sequence::Sequence;

/// Nothing delivered for so long means that what is missing is lost.
const STALL: Duration = Duration::from_secs(10);
/// How long to listen for duplicates after the last delivery.
const SETTLE: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(50);
/// An hour, the longest round there is.
const LONGEST_NANOS: u64 = 3_600_000_000_000;

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// All connections, which are one group in the plan.
    Everybody,
    /// The members of the sender's group.
    Group,
}

/// What to send, and to how many.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) audience: Audience,
    pub(crate) groups: usize,
    /// Connections of a group; group `g` has those from `g * group_size` on.
    pub(crate) group_size: usize,
    /// How many connections of each group send.
    pub(crate) senders: usize,
    pub(crate) messages: u32,
    pub(crate) bytes: usize,
    pub(crate) window: u32,
    /// Messages a second of an open loop, in which nothing waits for an answer; without it the window is kept full.
    pub(crate) rate: Option<f64>,
    /// A run that takes longer is cut, and has failed.
    pub(crate) limit: Duration,
}

/// A message to be sent.
#[derive(Debug)]
pub(crate) struct Post<'a> {
    pub(crate) sender: usize,
    pub(crate) group: usize,
    pub(crate) payload: &'a str,
}

/// What a run showed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) deliveries: u64,
    pub(crate) spent: Spent,
    /// Nanoseconds from sending to the last receiver; at a rate, from the moment a message is due to each receiver.
    pub(crate) latency: Histogram<u64>,
    /// Whether messages were sent at a rate.
    pub(crate) is_open_loop: bool,
    pub(crate) faults: Vec<String>,
}

struct Sent {
    group: usize,
    slot: usize,
    number: u32,
    missing: usize,
    at: Instant,
}

struct Relay<'a> {
    plan: &'a Plan,
    payloads: Payloads,
    random: Random,
    /// By number of the message, as carried in its payload.
    sent: Vec<Sent>,
    /// Messages sent so far, by group and slot.
    counts: Vec<u32>,
    sequence: Sequence,
    under_way: u32,
    completed: u32,
    deliveries: u64,
    unparsed: u64,
    latency: Histogram<u64>,
}

/// Runs `plan` over the open connections of `fleet`; `emit` hands one message to the server.
///
/// # Errors
/// The server is gone, or `emit` fails. Lost, doubled, reordered or unreadable messages are faults of the outcome.
pub(crate) fn run(
    fleet: &mut Fleet,
    plan: &Plan,
    server: &Processes,
    mut emit: impl FnMut(&mut Fleet, &Post<'_>) -> Result<()>,
) -> Result<Outcome> {
    let mut relay = Relay::new(plan)?;
    let meter = Meter::start(server)?;
    let cut = relay.drive(fleet, &mut emit)?;
    let spent = meter.stop()?;
    relay.settle(fleet)?;
    Ok(relay.into_outcome(spent, cut, fleet))
}

impl Plan {
    /// Returns a plan by which connections are made members of groups, and nothing is sent.
    pub(crate) fn silent(audience: Audience, groups: usize, group_size: usize) -> Self {
        let (senders, messages, bytes, window) = (1, 0, 0, 1);
        let limit = Duration::ZERO;
        Self { audience, groups, group_size, senders, messages, bytes, window, rate: None, limit }
    }

    /// Returns a tenth of the plan, to touch memory and fill caches before anything is measured.
    pub(crate) fn warm_up(&self) -> Self {
        Self { messages: self.messages.div_ceil(10), ..self.clone() }
    }
}

impl<'a> Relay<'a> {
    fn new(plan: &'a Plan) -> Result<Self> {
        Ok(Self {
            plan,
            payloads: Payloads::new(plan.bytes),
            random: Random::new(0x6761_7465),
            sent: Vec::new(),
            counts: vec![0; plan.groups * plan.senders],
            sequence: Sequence::new(plan.groups * plan.group_size, plan.senders),
            under_way: 0,
            completed: 0,
            deliveries: 0,
            unparsed: 0,
            latency: Histogram::new_with_bounds(1, LONGEST_NANOS, 3)?,
        })
    }

    /// Sends and receives until all is done; returns why it was cut short, if it was.
    fn drive(
        &mut self,
        fleet: &mut Fleet,
        emit: &mut impl FnMut(&mut Fleet, &Post<'_>) -> Result<()>,
    ) -> Result<Option<String>> {
        let started = Instant::now();
        let mut heard = (self.deliveries, started);
        while self.completed < self.plan.messages {
            self.post_due(fleet, emit, started)?;
            fleet.turn(TICK, &mut |conn, incoming| self.on_incoming(conn, &incoming))?;
            let now = Instant::now();
            if self.deliveries > heard.0 {
                heard = (self.deliveries, now);
            }
            if now - heard.1 > STALL {
                return Ok(Some(format!("nothing was delivered for {STALL:?}")));
            }
            if now - started > self.plan.limit {
                return Ok(Some(format!(
                    "cut after {:?}: {} messages done",
                    self.plan.limit, self.completed
                )));
            }
        }
        Ok(None)
    }

    /// Listens for what comes too often or too late.
    fn settle(&mut self, fleet: &mut Fleet) -> Result<()> {
        let until = Instant::now() + SETTLE;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            fleet.turn(left, &mut |conn, incoming| self.on_incoming(conn, &incoming))?;
        }
        Ok(())
    }

    /// Sends what the window has room for, or what is due by the rate.
    fn post_due(
        &mut self,
        fleet: &mut Fleet,
        emit: &mut impl FnMut(&mut Fleet, &Post<'_>) -> Result<()>,
        started: Instant,
    ) -> Result<()> {
        while self.sent.len() < self.plan.messages as usize {
            let now = Instant::now();
            let due = match self.plan.rate {
                Some(rate) => started + Duration::from_secs_f64(self.sent.len() as f64 / rate),
                None if self.under_way < self.plan.window => now,
                None => break,
            };
            if due > now {
                return fleet.wake_in(due - now);
            }
            self.post(fleet, emit, due)?;
        }
        Ok(())
    }

    fn post(
        &mut self,
        fleet: &mut Fleet,
        emit: &mut impl FnMut(&mut Fleet, &Post<'_>) -> Result<()>,
        at: Instant,
    ) -> Result<()> {
        let Plan { groups, group_size, senders, .. } = *self.plan;
        let (group, slot) = (self.random.below(groups), self.random.below(senders));
        let Some(count) = self.counts.get_mut(group * senders + slot) else {
            return Ok(());
        };
        let number = *count;
        *count += 1;
        let payload = self.payloads.build(u32::try_from(self.sent.len())?);
        self.sent.push(Sent { group, slot, number, missing: group_size, at });
        self.under_way += 1;
        // Spread over the group, so that senders are not neighbours in the server's tables.
        let sender = group * group_size + slot * (group_size / senders);
        emit(fleet, &Post { sender, group, payload: &payload })
    }

    fn on_incoming(&mut self, conn: usize, incoming: &Incoming<'_>) {
        match incoming {
            Incoming::Text(payload) => {
                if self.on_text(conn, payload).is_none() {
                    self.unparsed += 1;
                }
            }
            Incoming::Binary => self.unparsed += 1,
            // The fleet counts these.
            Incoming::Closed => {}
        }
    }

    /// Returns nothing for a message that is not ours, was changed, or was not meant for this connection.
    fn on_text(&mut self, conn: usize, payload: &[u8]) -> Option<()> {
        let number = self.payloads.number(payload)?;
        let sent =
            self.sent.get_mut(number as usize).filter(|sent| conn / self.plan.group_size == sent.group)?;
        if self.sequence.on_message(conn, sent.slot, sent.number) {
            self.deliveries += 1;
            sent.missing -= 1;
            let is_done = sent.missing == 0;
            if is_done {
                self.under_way -= 1;
                self.completed += 1;
            }
            if is_done || self.plan.rate.is_some() {
                let nanos = u64::try_from(sent.at.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.latency.saturating_record(nanos);
            }
        }
        Some(())
    }

    fn into_outcome(self, spent: Spent, cut: Option<String>, fleet: &Fleet) -> Outcome {
        let Plan { group_size, senders, .. } = *self.plan;
        let sent =
            |conn: usize, slot| self.counts.get(conn / group_size * senders + slot).copied().unwrap_or(0);
        let counted = [
            (self.sequence.lost(sent), "lost"),
            (self.sequence.duplicated(), "duplicated"),
            (self.sequence.reordered(), "reordered"),
            (self.unparsed, "not readable"),
        ];
        let mut faults: Vec<String> = cut.into_iter().collect();
        faults
            .extend(counted.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} deliveries {what}")));
        if fleet.n_closed() > 0 {
            faults.push(format!(
                "{} connections lost: {}",
                fleet.n_closed(),
                fleet.first_loss().unwrap_or_default()
            ));
        }
        Outcome {
            deliveries: self.deliveries,
            spent,
            latency: self.latency,
            is_open_loop: self.plan.rate.is_some(),
            faults,
        }
    }
}
