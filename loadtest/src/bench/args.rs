//! The arguments of the commands that measure.

mod common;
mod compare;
mod idle;
mod messages;
mod post;

pub(crate) use self::common::{DialectArgs, TargetArgs, WorkerArgs, WorkersArgs};
pub(crate) use self::compare::{ClusterArgs, CompareArgs, Peer};
pub(crate) use self::idle::{ChurnArgs, ClientsArgs, IdleArgs, StormArgs};
pub(crate) use self::messages::{
    BroadcastArgs, FanoutArgs, FloodArgs, FloorArgs, FloorServerArgs, GroupsArgs, LatencyArgs,
};
pub(crate) use self::post::PostArgs;
