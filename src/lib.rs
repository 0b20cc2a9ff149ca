//! Gatecast: a WebSocket gateway and relay that speaks the contract of Amazon API Gateway.
//!
//! # Reading order
//! `cli` → `node` (how it is put together) → `edge::http::connect` → `edge::admission` (the way in)
//! → `shard` and its children (the hot path) → `protocol::codec`, `routing::gateway`,
//! `cluster::broker`.
//!
//! # Layers
//! Folders are layers; each uses those before it in this list, and none behind it (`tests/tidy.rs`
//! checks it): `protocol`, `sigv4`, `model`, `ops`, `routing`, `config`, `limits`, `shard`,
//! `cluster`, `integrations`, `edge`, `drain`, `node`, `kubernetes`, `cli`.
//!
//! ```text
//!  client ── TCP ──▶ http::connect ── ticket, socket ──▶ ┌ shard (one thread, epoll) ───────────────┐
//!                      (warp, tokio)                     │ read: socket → codec → gateway → action  │
//!  back end ─ HTTP ─▶ http::manage ─┐                    │          publications │                  │
//!                                   ├── inbox ─────────▶ │ deliver: inbox → outboxes   ▼            │
//!                       broker ◀────┼────────────────────┼─────────────────────── publish           │
//!                          └────────┘                    │ write: each outbox once → socket         │
//!                                                        └──────────────────────────────────────────┘
//! ```
//!
//! # Invariants
//! - *Invariant:* only `cluster` knows Redis, through the driver `redis`.
//! - *Invariant:* only `edge::http` knows warp; only `cli` reads the environment; only
//!   `ops::metrics` spells a metric name; only `protocol::close` spells a close code.
//! - *Invariant:* nobody who delivers waits for a client. Every queue has a bound, a policy when
//!   full, and a counter.
//! - *Invariant:* a connection belongs to one shard, whose thread alone touches its socket; others
//!   ask through the inbox.
//! - *Invariant:* a message is encoded once per broadcast, however many receive it; a connection is
//!   written to once per turn.
//! - *Invariant:* no lock is held across an await or a system call. Lock order: broker, then inbox.
//! - *Invariant:* a connection holds no buffer while idle.
//! - *Invariant:* a node holds nothing that outlives it: losing one loses only its sockets.
//! - *Invariant:* a node has no rights in Kubernetes; only `kubernetes`, which is a process of its
//!   own, asks its API server.

pub mod cli;
mod cluster;
mod config;
mod drain;
mod edge;
mod integrations;
mod kubernetes;
mod limits;
mod model;
mod node;
mod ops;
mod protocol;
mod routing;
mod shard;
mod sigv4;

#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub use self::edge::http::doors;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use self::shard::bench;
