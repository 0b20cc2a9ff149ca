//! `HAProxy` in front of the nodes, as in production: least connections, health checks of `/ready`,
//! long tunnels.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::shared::child::Child;
use crate::shared::http;
use crate::shared::workspace::Workspace;

const START_LIMIT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// A running `HAProxy`.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(crate) port: u16,
    _child: Child,
}

impl Balancer {
    /// Starts it in front of nodes, given as (port, admin port), and waits until it reaches one.
    pub(crate) fn start(nodes: &[(u16, u16)], workspace: &mut Workspace) -> Result<Self> {
        let port = workspace.ports.allocate()?;
        let file = workspace.directory.join("haproxy.cfg");
        fs::write(&file, config(port, nodes))?;
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(file);
        let log = workspace.directory.join("haproxy.log");
        let child =
            Child::start(&command, Some(&log)).context("HAProxy is needed; or --haproxy no")?;
        workspace.interrupt.eventually("HAProxy answers", START_LIMIT, || {
            // Any answer of a node: this path expects an upgrade.
            let answer = http::get(port, "/beta", ANSWER_LIMIT).ok()?;
            (answer.status < 500).then_some(())
        })?;
        Ok(Self { port, _child: child })
    }
}

fn config(port: u16, nodes: &[(u16, u16)]) -> String {
    let mut text = format!(
        "defaults\n  mode http\n  option redispatch\n  retries 3\n  timeout connect 1s\n  timeout client 10s\n  \
         timeout server 10s\n  timeout tunnel 1h\n  timeout check 500ms\n\
         frontend public\n  bind 127.0.0.1:{port}\n  default_backend nodes\n\
         backend nodes\n  balance leastconn\n  option httpchk GET /ready\n  \
         default-server check inter 200ms fall 2 rise 1\n"
    );
    for (number, (port, admin)) in nodes.iter().enumerate() {
        text.push_str(&format!("  server node{number} 127.0.0.1:{port} port {admin}\n"));
    }
    text
}
