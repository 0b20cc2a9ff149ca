//! Back ends that are called over HTTP.
//!
//! One connection pool a target. Every answer is bounded: its head by the client, its body by
//! [`MAX_BODY`], its time by the call's deadline.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use rustls::RootCertStore;
use tokio::time::Instant;

use crate::config::{Format, HttpSettings};
use crate::integrations::client::{self, HttpClient, MAX_BODY};
use crate::integrations::event;
use crate::integrations::result;
use crate::integrations::target::{Failure, Target, failed, need};
use crate::model::call::{Answer, AnswerBody, CallError, Event, Occasion, Scene};
use crate::model::trail::{AMAZON, TRACEPARENT, Trail};

mod cloudevents;
mod raw;

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct HttpTarget {
    settings: HttpSettings,
    scene: Scene,
    /// Longest body of a reply, in bytes.
    message_bytes: usize,
    client: HttpClient,
    consent: cloudevents::Consent,
}

/// What is sent of a call.
struct Parts {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl HttpTarget {
    pub(crate) fn new(
        settings: HttpSettings,
        scene: Scene,
        message_bytes: usize,
        roots: &Arc<RootCertStore>,
    ) -> Self {
        let client = HttpClient::new(roots);
        Self { settings, scene, message_bytes, client, consent: cloudevents::Consent::default() }
    }

    fn parts(&self, event: &Event) -> Parts {
        let mut parts = match self.settings.format {
            Format::LambdaProxy => {
                let body = event::render(event, &self.scene);
                let headers = HeaderMap::from_iter([(CONTENT_TYPE, raw::json())]);
                Parts { uri: self.settings.url.clone(), headers, body }
            }
            Format::CloudEvents => cloudevents::binary(&self.settings.url, event, &self.scene),
            Format::CloudEventsStructured => {
                cloudevents::structured(&self.settings.url, event, &self.scene)
            }
            Format::Raw => raw::parts(&self.settings.url, event, &self.scene),
        };
        parts.headers.insert(TRACEPARENT, Trail::header(&event.trail.traceparent()));
        if self.settings.format == Format::LambdaProxy {
            parts.headers.insert(AMAZON, Trail::header(&event.trail.amazon()));
        }
        raw::add_mapped(&mut parts, &self.settings, event, &self.scene);
        parts
    }

    async fn send(&self, parts: Parts) -> Result<Response<Incoming>, Failure> {
        let Parts { uri, headers, body } = parts;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        self.client.send(request).await
    }

    async fn read(&self, event: &Event, response: Response<Incoming>) -> Result<Answer, Failure> {
        let (head, body) = response.into_parts();
        let status = head.status;
        let is_asked = matches!(event.occasion, Occasion::Connect(_));
        if status == StatusCode::TOO_MANY_REQUESTS && !is_asked {
            return Err(Failure {
                error: CallError::Overload,
                message: format!("it answered {status}"),
            });
        }
        let body = client::read(body, MAX_BODY).await?;
        if self.settings.format == Format::LambdaProxy {
            if !status.is_success() {
                return Err(failed(format!(
                    "it answered {status}; its result has to come with 2xx"
                )));
            }
            return result::parse(&body, need(event), self.message_bytes).map_err(failed);
        }
        if !status.is_success() && !is_asked {
            return Err(failed(format!("it answered {status}")));
        }
        let (length, most) = (body.len(), self.message_bytes);
        if event.wants_reply && length > most {
            return Err(failed(format!(
                "its reply has {length} bytes, and a message at most {most}"
            )));
        }
        let subprotocol =
            head.headers.get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
        let body = (!body.is_empty()).then(|| match str::from_utf8(&body) {
            Ok(_) => AnswerBody::Text(body),
            Err(_) => AnswerBody::Binary(body),
        });
        Ok(Answer { status: status.as_u16(), body, subprotocol: subprotocol.map(Into::into) })
    }
}

impl Target for HttpTarget {
    fn attributes(&self) -> Vec<(&'static str, String)> {
        let url = &self.settings.url;
        let port = if url.scheme_str() == Some("https") { 443 } else { 80 };
        vec![
            ("http.request.method", "POST".to_owned()),
            ("server.address", url.host().unwrap_or_default().to_owned()),
            ("server.port", url.port_u16().unwrap_or(port).to_string()),
        ]
    }

    fn carry_out<'a>(
        &'a self,
        event: &'a Event,
        _deadline: Instant,
    ) -> BoxFuture<'a, Result<Answer, Failure>> {
        Box::pin(async move {
            if matches!(self.settings.format, Format::CloudEvents | Format::CloudEventsStructured) {
                self.consent.ask(self).await?;
            }
            let response = self.send(self.parts(event)).await?;
            self.read(event, response).await
        })
    }
}
