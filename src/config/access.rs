//! Reads who may connect, who may call, and who may speak for others.

use std::net::SocketAddr;

use http::HeaderName;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::kinds::keys::{KeyId, KeySecret};
use super::reader::Reader;
use super::row::{Described as _, Kind};
use super::settings::{AccessKey, Auth, Management, ManagementAuth, Origins, ProxySettings};
use super::table::{auth, key, management, node};
use crate::model::origin::OriginPattern;

/// Longest list of origins, networks or keys: each is gone through for every handshake or call.
const LIST_MAX: usize = 1_000;

/// Widest networks that can be those of proxies alone, by their prefixes: `10.0.0.0/8` and
/// `fc00::/7`.
const WIDEST: (u8, u8) = (8, 7);

/// Headers that say something else than who the user is; those that begin with `sec-` or `proxy-`
/// do too.
const TAKEN_HEADERS: [&str; 29] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "idempotency-key",
    "keep-alive",
    "origin",
    "pragma",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
];

/// Takes `trusted_proxies` and `proxy_protocol`.
pub(super) fn proxies(reader: &mut Reader<'_>) -> ProxySettings {
    let trusted = reader.take(&node::trusted_proxies);
    if trusted.len() > LIST_MAX {
        let message = format!("more than {LIST_MAX}; write networks, such as \"10.0.0.0/8\"");
        reader.fault_of(&node::trusted_proxies, message);
    } else if let Some(network) = everybody(&trusted) {
        reader.warn(format!(
            "trusted_proxies has {network}: whoever connects may choose the address that they are known by; name the load balancers"
        ));
    }
    let protocol = reader.take(&node::proxy_protocol);
    if protocol && trusted.is_empty() {
        let message =
            "nobody could connect; set trusted_proxies to the addresses of the load balancers";
        reader.fault_of(&node::proxy_protocol, message);
    }
    ProxySettings { trusted, protocol }
}

/// Returns a network that is too wide to be that of proxies alone, also where it is written in
/// parts.
fn everybody(trusted: &[IpNet]) -> Option<IpNet> {
    let is_wide = |network: &IpNet| match network {
        IpNet::V4(network) => network.prefix_len() < WIDEST.0,
        IpNet::V6(network) => network.prefix_len() < WIDEST.1,
    };
    IpNet::aggregate(&trusted.to_vec()).into_iter().find(is_wide)
}

/// Takes `[auth]`.
pub(super) fn auth(reader: &mut Reader<'_>, proxies: &ProxySettings, listen: SocketAddr) -> Auth {
    let is_local = listen.ip().is_loopback() && proxies.trusted.is_empty();
    let allowed_origins = match origins(reader) {
        Some(origins) if origins.contains(&OriginPattern::Any) => Origins::Any,
        Some(origins) => Origins::Listed(origins.into()),
        None if is_local => Origins::Local,
        None => Origins::Any,
    };
    let (user_header, subprotocols) =
        (reader.take(&auth::user_header), reader.take(&auth::subprotocols));
    let auth = Auth { allowed_origins, user_header, subprotocols };
    let problem = match (&auth.user_header, everybody(&proxies.trusted)) {
        (None, _) => None,
        (Some(_), _) if proxies.trusted.is_empty() => {
            Some("anybody could name themselves; set trusted_proxies to the addresses that set the header".to_owned())
        }
        (Some(_), Some(network)) => Some(format!(
            "anybody could name themselves, since trusted_proxies has {network}; write the addresses that set the header"
        )),
        (Some(name), None) => is_taken(name).then(|| {
            format!("{name} says something else than who the user is; write a header of your own, such as \"X-User\"")
        }),
    };
    if let Some(problem) = problem {
        reader.fault_of(&auth::user_header, problem);
    }
    auth
}

/// Takes the list of origins; `None` if there is none.
fn origins(reader: &mut Reader<'_>) -> Option<Vec<OriginPattern>> {
    let (row, before) = (&auth::allowed_origins, reader.fault_count());
    let origins = reader.take(row);
    if origins.len() > LIST_MAX {
        let message =
            format!("more than {LIST_MAX}; write \"https://*.example.com\" for all subdomains");
        reader.fault_of(row, message);
    }
    let is_given = reader.is_given(&row.key());
    if is_given && origins.is_empty() && reader.fault_count() == before {
        let message = "empty; write the origins of the pages that may connect, or \"*\" for all, or leave it out";
        reader.fault_of(row, message);
    }
    is_given.then_some(origins)
}

fn is_taken(name: &HeaderName) -> bool {
    let name = name.as_str();
    TAKEN_HEADERS.contains(&name) || name.starts_with("sec-") || name.starts_with("proxy-")
}

impl Kind for Vec<AccessKey> {
    fn schema(_bounds: Option<&(Self, Self)>) -> Value {
        json!({ "type": "array", "maxItems": LIST_MAX })
    }
}

/// Takes the key pair of the two well-known variables or settings, and `[management]`; without any
/// key, only this host is served.
pub(super) fn management(reader: &mut Reader<'_>, addresses: [SocketAddr; 2]) -> Management {
    let mut keys: Vec<AccessKey> = Vec::new();
    let before = reader.fault_count();
    let (id, secret) = (reader.take(&node::access_key_id), reader.take(&node::secret_access_key));
    if reader.fault_count() == before && (id.is_some() || secret.is_some()) {
        let message = "access_key_id and secret_access_key go together; set both or none";
        match pair(id, secret, message, &keys) {
            Ok(key) => keys.push(key),
            Err(problem) => reader.fault_of(&node::access_key_id, problem),
        }
    }
    let own = keys.len();
    for mut section in reader.list_of_sections(&management::keys) {
        let (place, faults) = (reader.place_in(&section, key::id.name), reader.fault_count());
        let (id, secret) = (
            reader.take_from(&mut section, &key::id),
            reader.take_from(&mut section, &key::secret),
        );
        match pair(id, secret, "a key needs both id and secret", &keys) {
            Ok(key) => keys.push(key),
            Err(problem) if reader.fault_count() == faults => {
                reader.fault(place, &section.dotted(key::id.name), problem);
            }
            Err(_) => {}
        }
        reader.finish(section);
    }
    let listed = reader.settle(&management::keys, keys.split_off(own));
    keys.extend(listed);
    if keys.len() > LIST_MAX {
        reader.fault_of(&management::keys, format!("more than {LIST_MAX} keys"));
    }
    let keys_are_told = reader.fault_count() > before;
    let clock_skew = reader.take(&management::clock_skew);
    let wanted = reader.take(&management::auth);
    let auth = management_auth(wanted, &keys, addresses).unwrap_or_else(|message| {
        // Whoever has written a faulty key knows that one is needed.
        if !keys_are_told {
            reader.fault_of(&management::auth, message);
        }
        ManagementAuth::SigV4
    });
    if auth == ManagementAuth::None && !keys.is_empty() {
        reader.warn(
            "the keys of the management API are not asked for, since management.auth = \"none\""
                .to_owned(),
        );
    }
    Management { auth, keys: keys.into(), clock_skew }
}

/// Makes a key of a pair, if it is one and new; `message` says what is wrong otherwise.
fn pair(
    id: Option<KeyId>,
    secret: Option<KeySecret>,
    message: &str,
    keys: &[AccessKey],
) -> Result<AccessKey, String> {
    match (id, secret) {
        (Some(KeyId(id)), Some(_)) if keys.iter().any(|key| key.id == id) => {
            Err(format!("{id:?} is there twice; every id has one secret"))
        }
        (Some(KeyId(id)), Some(KeySecret(secret))) if id == secret.expose() => {
            Err("the secret is the same as the id, which is no secret".to_owned())
        }
        (Some(KeyId(id)), Some(KeySecret(secret))) => Ok(AccessKey { id, secret }),
        _ => Err(message.to_owned()),
    }
}

fn management_auth(
    wanted: Option<ManagementAuth>,
    keys: &[AccessKey],
    addresses: [SocketAddr; 2],
) -> Result<ManagementAuth, String> {
    let public = addresses.iter().find(|address| !address.ip().is_loopback());
    match (wanted, keys.is_empty(), public) {
        (Some(ManagementAuth::SigV4), true, _) => {
            Err("\"sigv4\" needs a key; set access_key_id and secret_access_key".to_owned())
        }
        (Some(auth), _, _) => Ok(auth),
        (None, false, _) => Ok(ManagementAuth::SigV4),
        (None, true, None) => Ok(ManagementAuth::Local),
        (None, true, Some(address)) => Err(format!(
            "{address} is reachable from other hosts and the management API has no keys; set access_key_id and \
             secret_access_key, or listen on loopback, or ask for an open API by management.auth = \"none\""
        )),
    }
}
