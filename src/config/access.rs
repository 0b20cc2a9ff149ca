//! Reads who may connect, who may call, and who may speak for others.

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use super::reader::{Reader, Section, Setting};
use super::{AccessKey, Auth, Management, ManagementAuth, Origins, ProxySettings, Secret};
use crate::model::origin::OriginPattern;

/// Longest list of origins, networks or keys: each is gone through for every handshake or call.
const LIST_MAX: usize = 1_000;

/// Shortest secret, in bytes: what is shorter is found by trying (NIST SP 800-63B §5.1.1.1 asks for 8 as well).
const SECRET_MIN: usize = 8;
const SECRET_MAX: usize = 1_024;

/// Widest networks that can be those of proxies alone, by their prefixes: `10.0.0.0/8` and `fc00::/7`.
const WIDEST: (u8, u8) = (8, 7);

/// Headers that say something else than who the user is; those that begin with `sec-` or `proxy-` do too.
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
pub(super) fn proxies<'d>(reader: &mut Reader<'d>, document: &mut Section<'d>) -> ProxySettings {
    let trusted_place = reader.place(document, "trusted_proxies");
    let trusted: Vec<IpNet> = reader.list(document, "trusted_proxies");
    if trusted.len() > LIST_MAX {
        let message = format!("more than {LIST_MAX}; write networks, such as \"10.0.0.0/8\"");
        reader.fault(trusted_place, "trusted_proxies".to_owned(), message);
    } else if let Some(network) = everybody(&trusted) {
        reader.warn(format!(
            "trusted_proxies has {network}: whoever connects may choose the address that they are known by; name the load balancers"
        ));
    }
    let place = reader.place(document, "proxy_protocol");
    let protocol = reader.setting(document, "proxy_protocol", false);
    if protocol && trusted.is_empty() {
        let message = "nobody could connect; set trusted_proxies to the addresses of the load balancers";
        reader.fault(place, "proxy_protocol".to_owned(), message);
    }
    ProxySettings { trusted, protocol }
}

/// Returns a network that is too wide to be that of proxies alone, also where it is written in parts.
fn everybody(trusted: &[IpNet]) -> Option<IpNet> {
    let is_wide = |network: &IpNet| match network {
        IpNet::V4(network) => network.prefix_len() < WIDEST.0,
        IpNet::V6(network) => network.prefix_len() < WIDEST.1,
    };
    IpNet::aggregate(&trusted.to_vec()).into_iter().find(is_wide)
}

/// Takes `[auth]`.
pub(super) fn auth<'d>(
    reader: &mut Reader<'d>,
    document: &mut Section<'d>,
    proxies: &ProxySettings,
    listen: SocketAddr,
) -> Auth {
    let mut section = reader.section(document, "auth");
    let is_listed = reader.is_set(&section, "allowed_origins");
    let origins = origins(reader, &mut section);
    let allowed_origins = match (origins, listen.ip().is_loopback() && proxies.trusted.is_empty()) {
        (origins, _) if origins.contains(&OriginPattern::Any) => Origins::Any,
        (origins, _) if is_listed => Origins::Listed(origins.into()),
        (_, true) => Origins::Local,
        (_, false) => Origins::Any,
    };
    let place = reader.place(&section, "user_header");
    let auth = Auth { allowed_origins, user_header: reader.optional(&mut section, "user_header") };
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
        reader.fault(place, "auth.user_header".to_owned(), problem);
    }
    reader.finish(section);
    auth
}

fn origins<'d>(reader: &mut Reader<'d>, section: &mut Section<'d>) -> Vec<OriginPattern> {
    let place = reader.place(section, "allowed_origins");
    let (is_set, before) = (reader.is_set(section, "allowed_origins"), reader.fault_count());
    let texts = reader.texts(section, "allowed_origins");
    let mut fault = |problem: String| reader.fault(place.clone(), section.dotted("allowed_origins"), problem);
    if texts.len() > LIST_MAX {
        fault(format!("more than {LIST_MAX}; write \"https://*.example.com\" for all subdomains"));
        return Vec::new();
    }
    let mut patterns = Vec::new();
    for text in &texts {
        match OriginPattern::parse(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(problem) => fault(problem),
        }
    }
    if is_set && texts.is_empty() && reader.fault_count() == before {
        let message =
            "empty; write the origins of the pages that may connect, or \"*\" for all, or leave it out";
        reader.fault(place, section.dotted("allowed_origins"), message);
    }
    patterns
}

fn is_taken(name: &HeaderName) -> bool {
    let name = name.as_str();
    TAKEN_HEADERS.contains(&name) || name.starts_with("sec-") || name.starts_with("proxy-")
}

/// The public half of a key: it stands in a header, between signs of its own.
struct KeyId(String);

/// The other half.
struct KeySecret(Secret);

impl Setting for KeyId {
    const EXPECTED: &'static str = "an id of 1 to 128 visible ASCII characters, without / and ,";

    fn read(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b',');
        ((1..=128).contains(&text.len()) && text.bytes().all(is_plain)).then(|| Self(text.to_owned()))
    }
}

impl Setting for KeySecret {
    const EXPECTED: &'static str = "a secret of 8 to 1024 bytes, without control characters and blanks at its ends; \
                                    draw one by `openssl rand -base64 30`";
    const SECRET: bool = true;

    fn read(text: &str) -> Option<Self> {
        let is_clean = text.trim() == text && !text.chars().any(char::is_control);
        ((SECRET_MIN..=SECRET_MAX).contains(&text.len()) && is_clean).then(|| Self(Secret::new(text)))
    }
}

/// Takes the key pair of the two well-known variables or settings, and `[management]`; without any key, only this host is served.
pub(super) fn management<'d>(
    reader: &mut Reader<'d>,
    document: &mut Section<'d>,
    addresses: [SocketAddr; 2],
) -> Management {
    let mut keys = Vec::new();
    let place = reader.place(document, "access_key_id");
    let before = reader.fault_count();
    let id = reader.optional::<KeyId>(document, "access_key_id");
    let secret = reader.optional::<KeySecret>(document, "secret_access_key");
    if reader.fault_count() == before && (id.is_some() || secret.is_some()) {
        let message = "access_key_id and secret_access_key go together; set both or none";
        add_key(reader, (place, "access_key_id".to_owned()), (id, secret, message), &mut keys);
    }
    let mut section = reader.section(document, "management");
    let list_place = reader.place(&section, "keys");
    for mut pair in reader.list_of_sections(&mut section, "keys") {
        let place = (reader.place(&pair, "id"), pair.dotted("id"));
        let faults = reader.fault_count();
        let id = reader.optional::<KeyId>(&mut pair, "id");
        let secret = reader.optional::<KeySecret>(&mut pair, "secret");
        if reader.fault_count() == faults {
            add_key(reader, place, (id, secret, "a key needs both id and secret"), &mut keys);
        }
        reader.finish(pair);
    }
    if keys.len() > LIST_MAX {
        reader.fault(list_place, "management.keys".to_owned(), format!("more than {LIST_MAX} keys"));
    }
    let keys_are_told = reader.fault_count() > before;
    let clock_skew = reader.within(
        &mut section,
        "clock_skew",
        Duration::from_secs(300),
        Duration::from_secs(1)..=Duration::from_secs(3_600),
    );
    let place = reader.place(&section, "auth");
    let wanted = reader.optional::<ManagementAuth>(&mut section, "auth");
    reader.finish(section);
    let auth = management_auth(wanted, &keys, addresses).unwrap_or_else(|message| {
        // Whoever has written a faulty key knows that one is needed.
        if !keys_are_told {
            reader.fault(place, "management.auth".to_owned(), message);
        }
        ManagementAuth::SigV4
    });
    if auth == ManagementAuth::None && !keys.is_empty() {
        reader.warn(
            "the keys of the management API are not asked for, since management.auth = \"none\"".to_owned(),
        );
    }
    Management { auth, keys, clock_skew }
}

/// Adds a pair, if it is one and new; `message` says what is wrong otherwise.
fn add_key(
    reader: &mut Reader<'_>,
    (place, name): (String, String),
    (id, secret, message): (Option<KeyId>, Option<KeySecret>, &str),
    keys: &mut Vec<AccessKey>,
) {
    let problem = match (id, secret) {
        (Some(KeyId(id)), Some(_)) if keys.iter().any(|key| key.id == id) => {
            format!("{id:?} is there twice; every id has one secret")
        }
        (Some(KeyId(id)), Some(KeySecret(secret))) if id == secret.expose() => {
            "the secret is the same as the id, which is no secret".to_owned()
        }
        (Some(KeyId(id)), Some(KeySecret(secret))) => return keys.push(AccessKey { id, secret }),
        _ => message.to_owned(),
    };
    reader.fault(place, name, problem);
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
