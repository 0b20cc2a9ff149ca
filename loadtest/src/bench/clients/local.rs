//! The share of one process: executes orders, its own or those of the program that started it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

use super::order::{Order, Reply, Sending};
use crate::bench::dialect::Dialect;
use crate::bench::fanout;
use crate::bench::fleet::{Fleet, Opening};
use crate::bench::join;
use crate::bench::payload::Payloads;
use crate::bench::relay::Share;
use crate::shared::target::Target;

/// The connections of this process.
#[derive(Debug)]
pub(super) struct Local {
    target: Target,
    dialect: Dialect,
    /// None while all are closed.
    fleet: Option<Fleet>,
}

impl Local {
    pub(super) fn new(target: Target, dialect: Dialect) -> Self {
        Self { target, dialect, fleet: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.fleet.is_some()
    }

    /// Answers pings for `time`.
    pub(super) fn linger(&mut self, time: Duration) -> Result<()> {
        match &mut self.fleet {
            Some(fleet) => fleet.linger(time)?,
            None => std::thread::park_timeout(time),
        }
        Ok(())
    }

    /// Executes an order.
    pub(super) fn obey(&mut self, order: Order) -> Result<Reply> {
        Ok(match order {
            Order::Open { n, pace } => {
                let mut fleet = Fleet::empty()?;
                let opening = Opening::Handshake(self.dialect.envelope());
                let opened = fleet.add(std::slice::from_ref(&self.target), (n, opening), &pace)?;
                self.fleet = Some(fleet);
                Reply::Opened(opened)
            }
            Order::Join { first, n, groups } => {
                let (fleet, dialect) = self.open()?;
                join::many_each(fleet, (first, n), groups, dialect)?;
                Reply::Done
            }
            Order::Send(sending) => self.send(*sending)?,
            Order::Losses => {
                let (fleet, _) = self.open()?;
                Reply::Losses(fleet.losses())
            }
            Order::Close => {
                self.fleet.take().map_or(Ok(()), Fleet::close)?;
                Reply::Done
            }
        })
    }

    fn send(&mut self, sending: Sending) -> Result<Reply> {
        let Sending { plan, server, first, n, tag, start } = sending;
        let lead = start.saturating_sub(shared_clock());
        let payloads = Payloads::with_tag(tag, plan.bytes);
        let share = Share { first, n, payloads, start: Instant::now() + lead };
        let outcome = fanout::send(self.open()?, &plan, share, &server)?;
        Ok(Reply::Sent(Box::new(outcome)))
    }

    fn open(&mut self) -> Result<(&mut Fleet, &Dialect)> {
        Ok((self.fleet.as_mut().context("no connection is open")?, &self.dialect))
    }
}

/// Returns the time since the machine started, which is the same in all processes.
pub(super) fn shared_clock() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}
