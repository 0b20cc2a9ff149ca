//! One measured run: keeps a window of messages under way and counts each delivery.
//!
//! Rule: a message is done when every connection of its group has it; then the next one is sent. If
//! the plan has a rate, each message is sent when it is due instead, and its latency counts from
//! then, however late it was sent. `emit` driver a message to the server, so that the floor and a
//! gateway are measured by the same code.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::bench::fleet::Fleet;
use crate::bench::outcome::{OpenLoop, Outcome};
use crate::bench::payload::Payloads;
use crate::bench::sequence::Sequence;
use crate::shared::conn::Incoming;
use crate::shared::histogram;
use crate::shared::process::{Meter, Processes, Spent};
use crate::shared::random::Random;

/// What is missing after this long without a delivery is lost.
const STALL: Duration = Duration::from_secs(10);
/// How long to listen for duplicates after the last delivery.
const SETTLE: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(50);
/// Time to prepare, so that the first message can be sent when it is due.
const LEAD: Duration = Duration::from_millis(20);

/// The receivers of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Audience {
    /// All connections, which are one group in the plan.
    Everybody,
    /// The members of the sender's group.
    Group,
}

/// The messages of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) audience: Audience,
    pub(crate) groups: usize,
    /// Connections of a group; those of group `g` begin at `g * group_size`.
    pub(crate) group_size: usize,
    /// How many connections of each group send.
    pub(crate) senders: usize,
    pub(crate) messages: u32,
    pub(crate) bytes: usize,
    pub(crate) window: u32,
    /// Messages a second of an open loop, which waits for nothing; without it the window is kept
    /// full.
    pub(crate) rate: Option<f64>,
    /// A run that takes longer is cut, and has failed.
    pub(crate) limit: Duration,
}

/// The part of a plan that this process does. Others may do the rest at the same time: the plan
/// tells each who sends what and when, so that they need not communicate. Only a plan with a rate
/// and one group can be shared.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    /// The number of its first connection in the plan.
    pub(crate) first: usize,
    pub(crate) n: usize,
    /// The same for all processes, as are the random choices.
    pub(crate) payloads: Payloads,
    /// When the first message is due.
    pub(crate) start: Instant,
}

/// A message to be sent.
#[derive(Debug)]
pub(crate) struct Post<'a> {
    /// A connection of this process.
    pub(crate) sender: usize,
    pub(crate) group: usize,
    pub(crate) payload: &'a str,
}

struct Sent {
    group: usize,
    slot: usize,
    number: u32,
    missing: usize,
    /// When it was sent, or due.
    at: Instant,
    /// From then until its last receiver has it.
    took: Option<Duration>,
}

struct Relay<'a> {
    plan: &'a Plan,
    share: Share,
    random: Random,
    /// Messages that are due so far.
    due: usize,
    /// By number of the message, which its payload has. One from another process may arrive before
    /// it is due by our clock.
    sent: Vec<Sent>,
    /// Messages sent so far, by group and slot.
    counts: Vec<u32>,
    sequence: Sequence,
    under_way: u32,
    completed: u32,
    deliveries: u64,
    unparsed: u64,
    latency: Histogram<u64>,
    lag: Histogram<u64>,
}

/// Runs a plan after a tenth of it as a warm-up, of which only the faults count.
pub(crate) fn run_after_warm_up(
    plan: &Plan,
    mut run: impl FnMut(&Plan) -> Result<Outcome>,
) -> Result<Outcome> {
    let warm = run(&Plan { messages: plan.messages.div_ceil(10), ..plan.clone() })?;
    let mut outcome = run(plan)?;
    outcome.faults.extend(warm.faults);
    Ok(outcome)
}

/// Runs `plan` over the open connections of `fleet`; `emit` driver one message to the server. Lost,
/// doubled, reordered or unreadable messages are faults of the outcome.
pub(crate) fn run(
    fleet: &mut Fleet,
    plan: &Plan,
    server: &Processes,
    emit: impl FnMut(&mut Fleet, &Post<'_>) -> Result<()>,
) -> Result<Outcome> {
    run_share(fleet, (plan, Share::whole(plan)), server, emit)
}

/// Runs a share of a plan, as [`run`] does.
pub(crate) fn run_share(
    fleet: &mut Fleet,
    (plan, share): (&Plan, Share),
    server: &Processes,
    mut emit: impl FnMut(&mut Fleet, &Post<'_>) -> Result<()>,
) -> Result<Outcome> {
    let mut relay = Relay::new(plan, share)?;
    let meter = Meter::start(server)?;
    let cut = relay.drive(fleet, &mut emit)?;
    let spent = Spent { elapsed: relay.share.start.elapsed(), ..meter.stop()? };
    relay.settle(fleet)?;
    Ok(relay.into_outcome(spent, cut, fleet))
}

impl Plan {
    /// Returns a plan in which connections join groups and nothing is sent.
    pub(crate) fn silent(audience: Audience, groups: usize, group_size: usize) -> Self {
        let (senders, messages, bytes, window) = (1, 0, 0, 1);
        let limit = Duration::ZERO;
        Self { audience, groups, group_size, senders, messages, bytes, window, rate: None, limit }
    }

    /// Returns how long after the start a message is due, if there is a rate.
    fn due(&self, number: usize) -> Option<Duration> {
        self.rate.map(|rate| Duration::from_secs_f64(number as f64 / rate))
    }
}

impl Sent {
    fn nanos(&self) -> u64 {
        u64::try_from(self.took.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Share {
    /// Returns all of a plan, starting now.
    pub(crate) fn whole(plan: &Plan) -> Self {
        let n = plan.groups * plan.group_size;
        let lead = if plan.rate.is_some() { LEAD } else { Duration::ZERO };
        Self { first: 0, n, payloads: Payloads::new(plan.bytes), start: Instant::now() + lead }
    }
}

impl<'a> Relay<'a> {
    fn new(plan: &'a Plan, share: Share) -> Result<Self> {
        Ok(Self {
            plan,
            random: Random::new(0x6761_7465),
            due: 0,
            sent: Vec::new(),
            counts: vec![0; plan.groups * plan.senders],
            sequence: Sequence::new(share.n, plan.senders),
            under_way: 0,
            completed: 0,
            deliveries: 0,
            unparsed: 0,
            latency: histogram::empty()?,
            lag: histogram::empty()?,
            share,
        })
    }

    /// Sends and receives until all messages are done; returns why it was cut short, if it was.
    fn drive(
        &mut self,
        fleet: &mut Fleet,
        emit: &mut impl FnMut(&mut Fleet, &Post<'_>) -> Result<()>,
    ) -> Result<Option<String>> {
        let started = self.share.start;
        let mut last_progress = (self.deliveries, started);
        while self.completed < self.plan.messages {
            self.post_due(fleet, emit)?;
            fleet.turn(TICK, &mut |conn, incoming| self.on_incoming(conn, &incoming))?;
            let now = Instant::now();
            if self.deliveries > last_progress.0 {
                last_progress = (self.deliveries, now);
            }
            if now - last_progress.1 > STALL {
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

    /// Listens for duplicates and late messages.
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
    ) -> Result<()> {
        while self.due < self.plan.messages as usize {
            let now = Instant::now();
            let at = match self.plan.due(self.due) {
                Some(due) => self.share.start + due,
                None if self.under_way < self.plan.window => now,
                None => break,
            };
            if at > now {
                return fleet.wake_in(at - now);
            }
            let number = self.due;
            self.due += 1;
            if self.sent.len() == number {
                self.choose_sender(at);
            }
            self.post(fleet, emit, number)?;
        }
        Ok(())
    }

    /// Chooses the sender of the next message; every process that has a share makes the same
    /// choice.
    fn choose_sender(&mut self, at: Instant) {
        let Plan { groups, senders, .. } = *self.plan;
        let (group, slot) = (self.random.below(groups), self.random.below(senders));
        let Some(count) = self.counts.get_mut(group * senders + slot) else { return };
        let number = *count;
        *count += 1;
        let missing = match self.plan.audience {
            Audience::Everybody => self.share.n,
            Audience::Group => self.plan.group_size,
        };
        self.under_way += 1;
        self.sent.push(Sent { group, slot, number, missing, at, took: None });
    }

    /// Sends message `number`, if its sender is a connection of this process.
    fn post(
        &mut self,
        fleet: &mut Fleet,
        emit: &mut impl FnMut(&mut Fleet, &Post<'_>) -> Result<()>,
        number: usize,
    ) -> Result<()> {
        let Plan { group_size, senders, .. } = *self.plan;
        let Some(Sent { group, slot, at, .. }) = self.sent.get(number) else { return Ok(()) };
        // Spread over the group, so that senders are not neighbours in the server's tables.
        let sender =
            (group * group_size + slot * (group_size / senders)).checked_sub(self.share.first);
        let Some(sender) = sender.filter(|sender| *sender < self.share.n) else { return Ok(()) };
        histogram::record(&mut self.lag, at.elapsed());
        let payload = self.share.payloads.build(u32::try_from(number)?);
        emit(fleet, &Post { sender, group: *group, payload: &payload })
    }

    fn on_incoming(&mut self, conn: usize, incoming: &Incoming<'_>) {
        match incoming {
            Incoming::Text(payload) => {
                if self.on_text(conn, payload).is_none() {
                    self.unparsed += 1;
                }
            }
            Incoming::Binary | Incoming::Answer(_) => self.unparsed += 1,
            // The fleet counts these.
            Incoming::Opened | Incoming::Closed => {}
        }
    }

    /// Returns nothing for a message that is not ours, was changed, or is for another connection.
    fn on_text(&mut self, conn: usize, payload: &[u8]) -> Option<()> {
        let number = self.share.payloads.number(payload)?;
        while self.sent.len() <= number as usize && number < self.plan.messages {
            let due = self.plan.due(self.sent.len())?;
            self.choose_sender(self.share.start + due);
        }
        let group = (conn + self.share.first) / self.plan.group_size;
        let sent = self.sent.get_mut(number as usize).filter(|sent| group == sent.group)?;
        if self.sequence.on_message(conn, sent.slot, sent.number) {
            self.deliveries += 1;
            sent.missing -= 1;
            let took = sent.at.elapsed();
            let is_done = sent.missing == 0;
            if is_done {
                sent.took = Some(took);
                self.under_way -= 1;
                self.completed += 1;
            }
            if is_done || self.plan.rate.is_some() {
                histogram::record(&mut self.latency, took);
            }
        }
        Some(())
    }

    fn into_outcome(self, spent: Spent, cut: Option<String>, fleet: &Fleet) -> Outcome {
        let Plan { group_size, senders, .. } = *self.plan;
        let sent = |conn: usize, slot| {
            let group = (conn + self.share.first) / group_size;
            self.counts.get(group * senders + slot).copied().unwrap_or(0)
        };
        let counted = [
            (self.sequence.lost(sent), "lost"),
            (self.sequence.duplicated(), "duplicated"),
            (self.sequence.reordered(), "reordered"),
            (self.unparsed, "not readable"),
        ];
        let mut faults: Vec<String> = cut.into_iter().collect();
        faults.extend(
            counted
                .iter()
                .filter(|(n, _)| *n > 0)
                .map(|(n, what)| format!("{n} deliveries {what}")),
        );
        faults.extend(fleet.losses().fault());
        let open_loop = self
            .plan
            .rate
            .map(|_| OpenLoop { last: self.sent.iter().map(Sent::nanos).collect(), lag: self.lag });
        Outcome { deliveries: self.deliveries, spent, latency: self.latency, open_loop, faults }
    }
}

#[cfg(test)]
mod tests;
