//! From a socket's bytes to what their messages ask for.

use std::io::{self, Read as _};
use std::sync::Arc;

use bytes::Bytes;

use super::Shard;
use super::access::{self, Noted};
use crate::limits::addresses::Who;
use crate::model::broker::{Channel, Key, Publication, Receipt, Recipient, Standing};
use crate::model::id::RequestId;
use crate::ops::metrics::{Farewell, NameLimit};
use crate::protocol::close::Close;
use crate::protocol::codec::Message;
use crate::routing::gateway::{Action, Outcome, Payload, frames};
use crate::shard::connection::Reading;
use crate::shard::connection::meter::Used;

/// What is read in one turn goes to the broker in portions of this many bytes, so that the bounds
/// beyond are asked in time.
const PUBLISH_BYTES: usize = 1 << 20;

/// What is read in one turn from connections that are being closed. The others, and their messages,
/// come first.
const THROWN_AWAY_BYTES: usize = 4 << 20;

/// Counted for a publication besides its frame.
const PUBLICATION: usize = 256;

impl Shard {
    /// Reads from connections that had more than one read's worth, or were held back.
    pub(super) fn read_rest(&mut self) {
        let mut put_off = Vec::new();
        for key in std::mem::take(&mut self.unread) {
            let Some(connection) = self
                .connections
                .get_mut(key)
                .filter(|connection| connection.reading == Reading::Queued)
            else {
                continue;
            };
            if self.thrown_away > THROWN_AWAY_BYTES && !connection.is_open() {
                put_off.push(key);
            } else {
                connection.resume_reading(self.now);
                self.read(key);
            }
        }
        if !put_off.is_empty() {
            // They are the first of the next turn.
            put_off.append(&mut self.unread);
            self.unread = put_off;
        }
    }

    /// Reads once. A client that does not take what waits for it, and all clients while a shard is
    /// behind, are left unread, so that they feel it; but not one that is being closed: what it
    /// sends is in the way of its close frame.
    pub(super) fn read(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (waits, limits) =
            (connection.outbox.bytes() + connection.answers.load().all, &self.snapshot.limits);
        let is_behind =
            waits > limits.outbox_bytes / 2 || connection.calls >= limits.calls_per_connection;
        if is_behind && connection.is_open() {
            connection.reading = Reading::Held;
            return;
        }
        let is_for_later = match connection.is_open() {
            true => self.parts.hub.is_congested(),
            false => self.thrown_away > THROWN_AWAY_BYTES,
        };
        if is_for_later {
            self.read_later(key);
            return;
        }
        let Some(stream) = &mut connection.stream else { return };
        let mut scratch = std::mem::take(&mut self.scratch);
        match stream.read(&mut scratch) {
            Ok(0) => self.on_end_of_stream(key),
            Ok(count) => {
                if count == scratch.len() || connection.hung_up {
                    self.read_later(key);
                }
                self.on_bytes(key, scratch.get_mut(..count).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.read_later(key),
            Err(_) => self.remove(key),
        }
        self.scratch = scratch;
    }

    pub(super) fn read_later(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.reading = Reading::Queued;
            self.unread.push(key);
        }
    }

    /// Takes bytes of a client, and charges it for them.
    pub(super) fn on_bytes(&mut self, key: usize, input: &mut [u8]) {
        self.used = Used { bytes: input.len() as u64, ..Used::default() };
        self.tally.received_bytes(input.len());
        self.decode(key, input);
        self.count_partial(key);
        self.charge(key);
        self.settle_memory();
    }

    /// Notes what is held of a message that has not arrived whole.
    pub(super) fn count_partial(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key) {
            let held = u32::try_from(connection.decoder.held()).unwrap_or(u32::MAX);
            self.tally.partial(std::mem::replace(&mut connection.partial_bytes, held), held);
        }
    }

    /// Leaves a client unread for as long as what it has sent is more than it may.
    fn charge(&mut self, key: usize) {
        let Some(connection) =
            self.connections.get_mut(key).filter(|connection| connection.is_open())
        else {
            return;
        };
        if let Some((time, limit)) = connection.meter.charge(&self.paces, &self.used, self.now) {
            connection.reading = Reading::Slowed { until: self.now + time };
            self.parts.telemetry.metrics.count_slowed(limit, 1, time);
            self.schedule(key);
        }
    }

    /// Decodes bytes and acts on every message, until one ends the connection.
    fn decode(&mut self, key: usize, mut input: &mut [u8]) {
        let limits = self.frame_limits;
        while let Some(connection) = self.connections.get_mut(key) {
            connection.on_heard(self.now);
            if !connection.is_open() {
                return self.throw_away(key, input);
            }
            match connection.decoder.next(&mut input, &limits) {
                Ok(Some(message)) => {
                    self.used.messages += 1;
                    self.on_message(key, message);
                }
                Ok(None) => {
                    if connection.decoder.is_mid_message() {
                        connection.on_active(self.now);
                    }
                    return;
                }
                Err(violation) => self.close(key, Close::Violation(violation)),
            }
        }
    }

    /// Takes bytes of a client that is being closed.
    fn throw_away(&mut self, key: usize, input: &[u8]) {
        self.tally.thrown_away(input.len());
        self.thrown_away += input.len();
        let Some(connection) = self.connections.get_mut(key) else { return };
        let was_finished = connection.is_finished();
        if !connection.throw_away(input, self.now) {
            self.cut(key, Farewell::Flood);
        } else if connection.is_finished() && !was_finished {
            self.write_soon(key);
        }
    }

    fn on_message(&mut self, key: usize, message: Message<'_>) {
        match message {
            Message::Text(text) => self.on_payload(key, Payload::Text(&text)),
            Message::Binary(bytes) => self.on_payload(key, Payload::Binary(&bytes)),
            Message::Ping(payload) => self.pong(key, &payload),
            Message::Pong(payload) => {
                let connection = self.connections.get_mut(key);
                let round_trip =
                    connection.and_then(|connection| connection.on_pong(&payload, self.now));
                if let Some(round_trip) = round_trip {
                    self.parts.telemetry.metrics.ping_rtt.observe(round_trip.as_secs_f64());
                }
            }
            Message::Close(sent) => {
                let close = sent.map_or(Close::ClientNoStatus, |(code, reason)| Close::Client {
                    code,
                    reason: reason.into(),
                });
                self.close(key, close);
            }
        }
    }

    fn on_payload(&mut self, key: usize, payload: Payload<'_>) {
        self.tally.received();
        let Some(connection) =
            self.connections.get_mut(key).filter(|connection| connection.is_open())
        else {
            return;
        };
        connection.on_active(self.now);
        let record = connection.ticket.record();
        let id = record.id;
        let outcome = self.snapshot.gateway.on_message(payload, record);
        let log = &self.parts.telemetry.access;
        let mut noted = access::begin(log, &self.snapshot, record, &outcome);
        let Outcome { request, action, mut reply, .. } = outcome;
        let mut close = false;
        match (action, request) {
            (Some(action), Some(request)) if !self.may_name(key, &action) => {
                reply = Some(frames::limit_exceeded(&id, &request));
                noted.iter_mut().for_each(Noted::refuse);
            }
            (Some(Action::Publish { channel, frame, key }), Some(request)) => {
                self.used.fanout_bytes += (frame.len() * self.local_members(&channel)) as u64;
                let to = noted.take().map(|noted| noted.publishing(&self.parts.hub, id));
                let receipt = Receipt::new(to.unwrap_or(Recipient::Sender(id, request)));
                self.publishing += frame.len() + PUBLICATION;
                let key = key.map(Key::Given);
                self.publications.push(Publication { channel, frame, key, receipt });
                if self.publishing > PUBLISH_BYTES {
                    self.publish();
                }
            }
            (Some(Action::Join(group)), Some(request)) => {
                let most = self.snapshot.limits.groups_per_connection;
                let waits =
                    self.connections.get(key).map_or(0, |connection| connection.answers.joins());
                reply = if self.members.count(key) < most && waits < most {
                    self.join_for(key, Channel::Group(group), request, reply)
                } else {
                    noted.iter_mut().for_each(Noted::refuse);
                    Some(frames::limit_exceeded(&id, &request))
                };
            }
            (Some(Action::Call(call)), Some(request)) => {
                self.call(key, request, *call, noted.take());
            }
            (Some(Action::Leave(group)), _) => self.leave(key, &Channel::Group(group)),
            (Some(Action::Close), _) => close = true,
            (Some(_) | None, _) => {}
        }
        if let Some(noted) = noted {
            noted.write();
        }
        if let Some(reply) = reply {
            self.reply(key, reply);
        }
        if close {
            self.close(key, Close::Route);
        }
    }

    /// Returns whether a client may do something to a group: one that is new to this node counts.
    fn may_name(&mut self, key: usize, action: &Action) -> bool {
        let group = match action {
            Action::Publish { channel: channel @ Channel::Group(_), .. } => channel,
            Action::Join(group) => &Channel::Group(Arc::clone(group)),
            Action::Publish { .. } | Action::Call(_) | Action::Leave(_) | Action::Close => {
                return true;
            }
        };
        let names = &self.parts.names;
        if names.knows(group, self.now) {
            return true;
        }
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let who =
            Who { address: connection.ticket.record().source_ip, exempt: &self.snapshot.trusted };
        let refused_by = if !connection.meter.take_new_channel(&self.paces, self.now) {
            Some(NameLimit::Connection)
        } else if !names.take(self.snapshot.limits.new_channels_per_address, who, self.now) {
            Some(NameLimit::Address)
        } else {
            names.note(group);
            None
        };
        if let Some(limit) = refused_by {
            self.parts.telemetry.metrics.count_new_channel_refused(limit);
        }
        refused_by.is_none()
    }

    /// Returns how many members of a channel are on this node, about: connections are spread evenly
    /// over the shards.
    fn local_members(&self, channel: &Channel) -> usize {
        let own = match channel {
            Channel::Broadcast => self.connections.len(),
            channel => self.members.of(channel).len(),
        };
        own * self.parts.hub.shard_count()
    }

    /// Joins for a client; returns what it is answered now, if not later.
    fn join_for(
        &mut self,
        key: usize,
        channel: Channel,
        request: RequestId,
        reply: Option<Bytes>,
    ) -> Option<Bytes> {
        let standing = self.join(key, &channel);
        let connection = self.connections.get_mut(key)?;
        match standing {
            Standing::Confirmed => reply,
            Standing::Refused => {
                let id = connection.ticket.record().id;
                Some(frames::internal_server_error(&id, &request))
            }
            Standing::Pending(_) => {
                connection.answers.wait(channel, request, reply);
                None
            }
        }
    }

    /// Hands what was read to the broker, and to back ends.
    pub(super) fn publish(&mut self) {
        self.publishing = 0;
        self.parts.broker.publish(&mut self.publications);
        for call in self.calls.drain(..) {
            self.parts.backends.call(call);
        }
    }

    /// The client will send nothing more. It may still read: what it is owed is written first.
    fn on_end_of_stream(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.is_open() || connection.outbox.is_empty() {
            self.remove(key);
        } else {
            connection.on_end_of_stream(self.now);
            self.write_soon(key);
        }
    }
}
