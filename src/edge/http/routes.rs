//! What a port answers: filters of warp, as a service.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use http::{Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tower_service::Service;
use warp::hyper::Request;
use warp::{Filter, Rejection, Reply as _};

use super::answer::error_reply;
use crate::limits::budget::Gauge;

/// The answer to come. In a box, since hyper and warp would else copy the state of all routes from
/// place to place.
type AnswerFuture = Pin<Box<dyn Future<Output = Result<warp::reply::Response, Infallible>> + Send>>;

/// What a port answers.
pub(crate) type Routes = Arc<dyn Fn(Request<Incoming>) -> AnswerFuture + Send + Sync>;

/// Makes a filter the routes of a port.
pub(crate) fn routes(
    filter: impl Filter<Extract = (Response<Vec<u8>>,), Error = Rejection>
    + Clone
    + Send
    + Sync
    + 'static,
) -> Routes {
    counted_routes(filter, Gauge::default())
}

/// As [`routes`]; the answers count as memory until they are written.
pub(crate) fn counted_routes(
    filter: impl Filter<Extract = (Response<Vec<u8>>,), Error = Rejection>
    + Clone
    + Send
    + Sync
    + 'static,
    memory: Gauge,
) -> Routes {
    let counted = move |answer: Response<Vec<u8>>| answer.map(|body| memory.share(body.into()));
    let service = warp::service(filter.recover(unknown).unify().map(counted));
    Arc::new(move |request| Box::pin(service.clone().call(request)))
}

/// Puts routes beside others. The path decides, so that no filter is tried for nothing.
pub(crate) fn beside(is_path: fn(&str) -> bool, routes: Routes, others: Routes) -> Routes {
    Arc::new(move |request| {
        let routes = if is_path(request.uri().path()) { &routes } else { &others };
        routes(request)
    })
}

/// Gives the first request an answer that is known already, the others to their routes.
pub(super) fn beginning_with(answer: Response<Vec<u8>>, routes: Routes) -> Routes {
    let answer = Mutex::new(Some(answer));
    Arc::new(move |request| match answer.lock().take() {
        Some(answer) => Box::pin(ready(Ok(answer.into_response()))),
        None => routes(request),
    })
}

/// Answers what no route takes.
async fn unknown(_: Rejection) -> Result<Response<Vec<u8>>, Infallible> {
    Ok(error_reply(StatusCode::NOT_FOUND, "NotFoundException", "Not Found"))
}
