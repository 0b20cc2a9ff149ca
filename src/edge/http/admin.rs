//! The admin port: metrics, health, what runs here; and the management API, so that back ends need
//! not go through the load balancer.
//!
//! - `/metrics`: Prometheus text format.
//! - `/live`: 200 while the process can answer and no part of it is stuck, else 503 and which.
//! - `/ready`: 200 while the node takes new connections, else 503; with what is wrong, be it ready
//!   or not.
//! - `/info`: JSON for people.
//! - `/openapi.json`: what the management API takes and answers, for programs.

use std::future::ready;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use warp::{Filter, Reply as _};

use super::answer::{json_reply, page as answer_page};
use super::caller::Caller;
use super::routes::{Routes, routes as service};
use super::{listing, local, manage};
use crate::cluster::backend::Backend;
use crate::config::{ManagementAuth, Snapshots};
use crate::limits::places::Places;
use crate::model::phase::Phase;
use crate::ops::lifecycle::Lifecycle;
use crate::ops::metrics::Metrics;
use crate::ops::vitals::Vitals;

/// Pages that everybody may see who reaches the port: load balancers ask for them under names of
/// their own.
const OPEN: &[&str] = &["/live", "/ready"];

/// What the admin port shows.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) node: Arc<str>,
    pub(crate) stage: Arc<str>,
    pub(crate) shards: usize,
    pub(crate) backend: Backend,
    pub(crate) started: Instant,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) places: Arc<Places>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) snapshots: Snapshots,
}

/// The routes of the admin port.
fn routes(
    admin: &Admin,
) -> impl Filter<Extract = (Response<Vec<u8>>,), Error = warp::Rejection> + Clone + use<> {
    let page = |name: &'static str, show: fn(&Admin) -> Response<Vec<u8>>| {
        let admin = admin.clone();
        let path = warp::path(name).and(warp::path::end());
        path.and(warp::method()).map(move |method| answer_page(&method, || show(&admin)))
    };
    let metrics = Arc::clone(&admin.metrics);
    let vitals = Arc::clone(&admin.vitals);
    let process = process_routes(move || metrics.render(), move || vitals.stuck());
    let ready = page("ready", Admin::ready);
    let info = page("info", Admin::info);
    let document = page("openapi.json", |_| json_reply(StatusCode::OK, listing::DOCUMENT.into()));
    process.or(ready).unify().or(info).unify().or(document).unify()
}

/// What the admin port answers beside the management API. Where that is for this host only, these
/// pages are too.
pub(crate) fn pages(admin: &Admin) -> Routes {
    let pages = service(routes(admin));
    let (metrics, snapshots) = (Arc::clone(&admin.metrics), admin.snapshots.clone());
    Arc::new(move |request| match local::check(request.headers(), request.version()) {
        Err(foreign) if !OPEN.contains(&request.uri().path()) && is_local(&snapshots) => {
            let address = request.extensions().get::<Caller>().map(|caller| caller.peer.ip());
            let answer = manage::not_local(foreign, address, &metrics.refusals);
            Box::pin(ready(Ok(answer.into_response())))
        }
        _ => pages(request),
    })
}

fn is_local(snapshots: &Snapshots) -> bool {
    snapshots.latest().management.auth == ManagementAuth::Local
}

/// `/metrics` and `/live`, which every process of ours has.
pub(crate) fn process_routes(
    render: impl Fn() -> Result<Vec<u8>, prometheus::Error> + Clone + Send,
    stuck: impl Fn() -> Vec<String> + Clone + Send,
) -> impl Filter<Extract = (Response<Vec<u8>>,), Error = warp::Rejection> + Clone {
    let page = |name: &'static str| warp::path(name).and(warp::path::end()).and(warp::method());
    let live = page("live").map(move |method| answer_page(&method, || live_page(&stuck())));
    let metrics =
        page("metrics").map(move |method| answer_page(&method, || metrics_page(render())));
    metrics.or(live).unify()
}

fn live_page(stuck: &[String]) -> Response<Vec<u8>> {
    let (status, body) = match stuck {
        [] => (StatusCode::OK, json!({ "status": "live" })),
        stuck => (StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "stuck", "parts": stuck })),
    };
    json_reply(status, body.to_string().into_bytes())
}

fn metrics_page(rendered: Result<Vec<u8>, prometheus::Error>) -> Response<Vec<u8>> {
    match rendered {
        Ok(text) => {
            let mut answer = Response::new(text);
            let format = HeaderValue::from_static("text/plain; version=0.0.4");
            answer.headers_mut().insert(http::header::CONTENT_TYPE, format);
            answer
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            json_reply(StatusCode::INTERNAL_SERVER_ERROR, Vec::new())
        }
    }
}

impl Admin {
    fn ready(&self) -> Response<Vec<u8>> {
        let trouble = self.backend.trouble();
        let (status, text) = match self.lifecycle.phase() {
            Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
            Phase::Ready if !self.backend.is_ready() => {
                (StatusCode::SERVICE_UNAVAILABLE, "waiting for Redis")
            }
            Phase::Ready => (StatusCode::OK, "ready"),
            Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        };
        let mut body = json!({ "status": text });
        if let (Some(trouble), Value::Object(fields)) = (trouble, &mut body) {
            fields.insert("reason".to_owned(), trouble.to_string().into());
        }
        json_reply(status, body.to_string().into_bytes())
    }

    fn info(&self) -> Response<Vec<u8>> {
        let info = json!({
            "name": "gatecast",
            "version": env!("CARGO_PKG_VERSION"),
            "node": &*self.node,
            "stage": &*self.stage,
            "broker": self.backend.name(),
            "shards": self.shards,
            "connections": self.places.taken(),
            "uptime_seconds": self.started.elapsed().as_secs(),
        });
        json_reply(StatusCode::OK, info.to_string().into_bytes())
    }
}
