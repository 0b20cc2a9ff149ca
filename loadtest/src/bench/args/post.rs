//! The command of the management API.

use std::env;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::common::{MAX_MESSAGES, RepeatArgs, TargetArgs, bytes, connections};
use crate::bench::sigv4::Key;
use crate::shared::args::within;

#[derive(Debug, Args)]
pub(crate) struct PostArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Stage to post to, if the sockets are at another node: http://127.0.0.1:PORT/STAGE
    #[arg(long)]
    pub(crate) post_url: Option<String>,
    /// Sign the posts with this key of the management API, `AWS_ACCESS_KEY_ID` if not given;
    /// `AWS_SECRET_ACCESS_KEY` holds its secret
    #[arg(long, value_name = "ID")]
    pub(crate) access_key_id: Option<String>,
    /// WebSocket connections, to which posts go in turn
    #[arg(long, default_value_t = 1000, value_parser = connections)]
    pub(crate) connections: usize,
    /// HTTP connections, each with one post at a time
    #[arg(long, default_value_t = 16, value_parser = |text: &str| within(text, 1, 512))]
    pub(crate) clients: usize,
    /// Posts a round; a tenth more before, to warm up
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=MAX_MESSAGES))]
    pub(crate) posts: u32,
    /// Size of each body
    #[arg(long, default_value_t = 128, value_parser = bytes)]
    pub(crate) bytes: usize,
    #[command(flatten)]
    pub(crate) repeat: RepeatArgs,
}

impl PostArgs {
    /// Returns the key to sign with, if posts are to be signed; its secret comes from the
    /// environment.
    pub(crate) fn key(&self) -> Result<Option<Key>> {
        let Some(id) = self.access_key_id.clone().or_else(|| env::var("AWS_ACCESS_KEY_ID").ok())
        else {
            return Ok(None);
        };
        ensure!(id.bytes().all(|byte| byte.is_ascii_graphic()), "`{id}` is no id of a key");
        let secret = env::var("AWS_SECRET_ACCESS_KEY")
            .context("the secret of the access key is not in AWS_SECRET_ACCESS_KEY")?;
        Ok(Some(Key { id, secret }))
    }
}
