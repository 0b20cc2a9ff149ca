//! Pods, as far as they matter here, out of the API server's lists.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

/// Where Kubernetes looks for a pod's cost.
pub(super) const ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The name of the port that a node's metrics are on.
const ADMIN_PORT: &str = "admin";

/// A page of pods.
#[derive(Debug, Deserialize)]
pub(super) struct List {
    #[serde(default)]
    pub(super) metadata: ListMetadata,
    #[serde(default)]
    pub(super) items: Vec<Pod>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ListMetadata {
    /// What to ask the next page with; empty after the last.
    #[serde(default, rename = "continue")]
    pub(super) next: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    deletion_timestamp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
struct Container {
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    #[serde(default)]
    name: String,
    container_port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: Option<IpAddr>,
}

impl Pod {
    pub(super) fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The cost as it is written now.
    pub(super) fn cost(&self) -> Option<&str> {
        self.metadata.annotations.get(ANNOTATION).map(String::as_str)
    }

    /// Returns where to ask the node for its connections; `None` for a pod that has none, or that
    /// goes already. Whether it is ready does not matter: when Redis is away none is, and all have
    /// their connections.
    pub(super) fn admin(&self) -> Option<SocketAddr> {
        if self.status.phase != "Running" || self.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let ports = self.spec.containers.iter().flat_map(|container| &container.ports);
        let port =
            ports.filter(|port| port.name == ADMIN_PORT).map(|port| port.container_port).next()?;
        Some(SocketAddr::new(self.status.pod_ip?, port))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "gatecast-0", "uid": "1", "annotations": {ANNOTATION: "7", "other": "8"}},
            "spec": {
                "containers": [
                    {"name": "sidecar"},
                    {"name": "gatecast", "ports": [
                        {"containerPort": 8080, "name": "public", "protocol": "TCP"},
                        {"containerPort": 9090, "name": "admin", "protocol": "TCP"},
                    ]},
                ],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "False"}]},
        });
        change(&mut pod);
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn a_running_pod_is_asked_at_its_admin_port() {
        let plain = pod(|_| {});
        assert_eq!((plain.name(), plain.cost()), ("gatecast-0", Some("7")));
        assert_eq!(plain.admin(), Some("10.0.0.7:9090".parse().expect("an address")));
        let ipv6 = pod(|pod| pod["status"]["podIP"] = json!("fd00::7"));
        assert_eq!(ipv6.admin(), Some("[fd00::7]:9090".parse().expect("an address")));
    }

    #[test]
    fn a_pod_without_a_node_is_left_alone() {
        let changes: [fn(&mut Value); 7] = [
            |pod| pod["status"]["phase"] = json!("Pending"),
            |pod| pod["status"]["phase"] = json!("Failed"),
            |pod| pod["status"] = json!({"phase": "Running"}),
            |pod| pod["status"] = json!({}),
            |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-11-26T12:00:00Z"),
            |pod| pod["spec"]["containers"][1]["ports"][1]["name"] = json!("metrics"),
            |pod| pod["spec"]["containers"] = json!([]),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert_eq!(pod(change).admin(), None, "{index}");
        }
    }

    #[test]
    fn a_pod_without_annotations_has_no_cost() {
        assert_eq!(pod(|pod| pod["metadata"] = json!({"name": "gatecast-0"})).cost(), None);
    }

    #[test]
    fn the_last_page_names_no_next() {
        let list = |text| {
            serde_json::from_str::<List>(text).map(|list| (list.metadata.next, list.items.len()))
        };
        assert_eq!(
            list(r#"{"metadata":{"continue":"x"},"items":[{"metadata":{"name":"a"}}]}"#).ok(),
            Some(("x".into(), 1))
        );
        assert_eq!(
            list(r#"{"metadata":{"resourceVersion":"9"},"items":[]}"#).ok(),
            Some((String::new(), 0))
        );
        assert!(list(r#"{"items":[{}]}"#).is_err());
        assert!(list("<html>").is_err());
    }
}
