//! The paths of the management API: one table, which routes requests and is checked against the
//! OpenAPI document.

use percent_encoding::percent_decode_str;

use crate::edge::http::percent;
use crate::edge::sigv4::Scope;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    Post,
    Get,
    Delete,
    Connections,
    GroupsOf,
    Join,
    Leave,
    Broadcast,
    SendToGroup,
    SendToUser,
    Groups,
    GroupConnections,
    UserConnections,
    History,
    Counts,
    Functions,
    Document,
}

impl Endpoint {
    /// Returns whether a key with this scope opens it.
    pub(super) fn is_open_to(self, scope: Scope) -> bool {
        scope == Scope::All || matches!(self, Self::Post | Self::Get | Self::Delete)
    }

    /// Returns whether serving it makes the node hold much: messages, and lists.
    pub(crate) fn takes_memory(self) -> bool {
        matches!(
            self,
            Self::Post
                | Self::Broadcast
                | Self::SendToGroup
                | Self::SendToUser
                | Self::Connections
                | Self::Groups
                | Self::GroupConnections
                | Self::UserConnections
                | Self::History
        )
    }
}

/// Method and path, behind the stage, of every endpoint; `{…}` stands for one segment.
const ENDPOINTS: &[(&str, &str, Endpoint)] = &[
    ("POST", "/@connections/{connectionId}", Endpoint::Post),
    ("GET", "/@connections/{connectionId}", Endpoint::Get),
    ("DELETE", "/@connections/{connectionId}", Endpoint::Delete),
    ("GET", "/@connections", Endpoint::Connections),
    ("GET", "/@connections/{connectionId}/groups", Endpoint::GroupsOf),
    ("PUT", "/@connections/{connectionId}/groups/{group}", Endpoint::Join),
    ("DELETE", "/@connections/{connectionId}/groups/{group}", Endpoint::Leave),
    ("POST", "/@broadcast", Endpoint::Broadcast),
    ("GET", "/@groups", Endpoint::Groups),
    ("POST", "/@groups/{group}", Endpoint::SendToGroup),
    ("GET", "/@groups/{group}/connections", Endpoint::GroupConnections),
    ("GET", "/@groups/{group}/history", Endpoint::History),
    ("POST", "/@users/{user}", Endpoint::SendToUser),
    ("GET", "/@users/{user}/connections", Endpoint::UserConnections),
    ("GET", "/@counts", Endpoint::Counts),
    ("GET", "/@functions", Endpoint::Functions),
    ("GET", "/@openapi", Endpoint::Document),
];

/// A path of the management API, decoded: empty segments do not count, `%40` is `@`. `None` if it
/// is not UTF-8 then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path(Option<Vec<String>>);

/// What a path and a method name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'p> {
    /// With the segments that the table leaves open, in order.
    Endpoint(Endpoint, [&'p str; 2]),
    /// The path is known, but not with this method.
    OtherMethod,
    /// It is not UTF-8, so it may be meant for anything.
    Unreadable,
    Nothing,
}

impl Endpoint {
    /// Returns the name under which calls are counted.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Post => "post",
            Self::Get => "get",
            Self::Delete => "delete",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Broadcast | Self::SendToGroup | Self::SendToUser => "publish",
            Self::Connections
            | Self::GroupsOf
            | Self::Groups
            | Self::GroupConnections
            | Self::UserConnections
            | Self::Functions => "list",
            Self::History => "history",
            Self::Counts => "count",
            Self::Document => "openapi",
        }
    }
}

impl Path {
    /// Returns whether a path is the management API's: its first or, behind a stage, second segment
    /// starts with `@`.
    pub(super) fn is_ours(path: &str) -> bool {
        segments(path).take(2).any(|segment| percent_decode_str(segment).next() == Some(b'@'))
    }

    /// Returns the path if it is the management API's.
    pub(super) fn parse(path: &str) -> Option<Self> {
        if !Self::is_ours(path) {
            return None;
        }
        // A signature covers the path that is left when these are folded; it must not open another.
        if segments(path).any(|segment| matches!(segment, "." | "..")) {
            return Some(Self(Some(Vec::new())));
        }
        let decode = |segment| percent::decode(segment);
        Some(Self(segments(path).map(decode).collect()))
    }

    /// Looks the path up. What can be got can be asked for with HEAD too.
    pub(super) fn find(&self, stage: &str, method: &str) -> Found<'_> {
        let Some(segments) = &self.0 else { return Found::Unreadable };
        let Some((_, rest)) = segments.split_first().filter(|(own_stage, _)| *own_stage == stage)
        else {
            return Found::Nothing;
        };
        let method = if method == "HEAD" { "GET" } else { method };
        let mut found = Found::Nothing;
        for (known, pattern, endpoint) in ENDPOINTS {
            match opened(pattern, rest) {
                Some(open) if *known == method => return Found::Endpoint(*endpoint, open),
                Some(_) => found = Found::OtherMethod,
                None => {}
            }
        }
        found
    }
}

impl Path {
    /// Returns the methods that the path has, as `Allow` lists them.
    pub(super) fn methods(&self, stage: &str) -> String {
        let known = ["GET", "HEAD", "POST", "PUT", "DELETE"];
        let has = |method: &&str| matches!(self.find(stage, method), Found::Endpoint(..));
        known.into_iter().filter(has).collect::<Vec<_>>().join(", ")
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// Returns the segments that a pattern leaves open; `None` if the path is not of that form.
fn opened<'p>(pattern: &str, path: &'p [String]) -> Option<[&'p str; 2]> {
    let pattern = pattern.split('/').skip(1);
    if pattern.clone().count() != path.len() {
        return None;
    }
    let mut open = [""; 2];
    let mut places = open.iter_mut();
    for (known, segment) in pattern.zip(path) {
        if known.starts_with('{') {
            *places.next()? = segment.as_str();
        } else if known != segment {
            return None;
        }
    }
    Some(open)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::edge::http::listing::DOCUMENT;

    #[test]
    fn paths_of_the_sdks_name_a_connection() {
        for path in [
            "/prod/@connections/L0SM9cOFvHcCIhw%3D",
            "/prod//@connections/L0SM9cOFvHcCIhw%3D",
            "/prod/%40connections/L0SM9cOFvHcCIhw=",
        ] {
            let path = Path::parse(path).expect("a path of the management API");
            let expected = Found::Endpoint(Endpoint::Get, ["L0SM9cOFvHcCIhw=", ""]);
            assert_eq!(path.find("prod", "GET"), expected, "{path:?}");
            assert_eq!(path.find("prod", "HEAD"), expected, "{path:?}");
            assert_eq!(path.find("prod", "PATCH"), Found::OtherMethod);
            assert_eq!(path.methods("prod"), "GET, HEAD, POST, DELETE");
            assert_eq!(path.find("beta", "GET"), Found::Nothing);
        }
        assert_eq!(Path::parse("/prod"), None);
        assert_eq!(Path::parse("/prod/x/@connections"), None);
        let no_stage =
            Path::parse("/@connections/L0SM9cOFvHcCIhw=").expect("answered with Forbidden");
        assert_eq!(no_stage.find("prod", "GET"), Found::Nothing);
    }

    #[test]
    fn what_a_signature_would_fold_is_no_path() {
        for path in [
            "/beta/@connections/L0SM9cOFvHcCIhw=/groups/..",
            "/beta/@groups/./moon",
            "/beta/@groups/.",
        ] {
            let path = Path::parse(path).expect("answered with Forbidden");
            for method in ["GET", "PUT", "POST", "DELETE"] {
                assert_eq!(path.find("beta", method), Found::Nothing, "{path:?}");
            }
        }
        let spelled = Path::parse("/beta/@groups/%2E%2E").expect("a path");
        assert_eq!(
            spelled.find("beta", "POST"),
            Found::Endpoint(Endpoint::SendToGroup, ["..", ""])
        );
    }

    #[test]
    fn what_is_no_text_names_nothing() {
        for path in ["/beta/@users/Jos%E9", "/beta/@groups/%FF/connections", "/%C3/@broadcast"] {
            let path = Path::parse(path).expect("a path of the management API");
            assert_eq!(path.find("beta", "POST"), Found::Unreadable, "{path:?}");
        }
    }

    #[test]
    fn names_may_hold_what_separates_elsewhere() {
        let path = Path::parse("/beta/@connections/L0SM9cOFvHcCIhw=/groups/a%2Fb%20%C3%BC")
            .expect("a path");
        let expected = Found::Endpoint(Endpoint::Join, ["L0SM9cOFvHcCIhw=", "a/b ü"]);
        assert_eq!(path.find("beta", "PUT"), expected);
    }

    #[test]
    fn the_document_describes_what_is_routed_and_nothing_else() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let methods = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
        let described: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, item)| {
                let item = item.as_object().expect("a path item");
                let known = item.keys().filter(|key| methods.contains(&key.as_str()));
                known.map(move |method| (method.to_uppercase(), path.clone()))
            })
            .collect();
        let routed: BTreeSet<(String, String)> = ENDPOINTS
            .iter()
            .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
            .collect();
        assert_eq!(described, routed);
        for (method, pattern, endpoint) in ENDPOINTS {
            let path =
                Path::parse(&format!("/beta{pattern}")).expect("a path of the management API");
            let Found::Endpoint(found, _) = path.find("beta", method) else { panic!("{pattern}") };
            assert_eq!(found, *endpoint);
        }
    }
}
