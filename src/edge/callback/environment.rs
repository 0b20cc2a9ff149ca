//! What functions are started with: files with certificates in a folder of their own, and variables
//! that name them.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use super::wishes::HostMap;
use crate::config::AccessKey;

/// Has Node.js find the hosts that are mapped.
const PRELOAD: &str = include_str!("preload.cjs");

/// Columns of PEM (RFC 7468 §2).
const PEM_COLUMNS: usize = 64;

/// What is known when the node starts.
#[derive(Debug)]
pub(super) struct Facts {
    /// `host` or `host:port` of the management API.
    pub(super) domain: String,
    pub(super) stage: String,
    pub(super) region: String,
    pub(super) key: AccessKey,
    /// Where TLS is ended for mapped hosts.
    pub(super) mapped: Option<String>,
}

/// See the [module documentation](self); the folder is removed with the last that holds it.
#[derive(Debug)]
pub(crate) struct Environment {
    facts: Facts,
    folder: TempDir,
}

impl Environment {
    /// Writes the files: whom functions trust, first beside whom they trust anyway, and then in
    /// place of these.
    pub(super) fn write(
        facts: Facts,
        trusted: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> io::Result<Self> {
        let private = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix("gatecast-").permissions(private).tempdir()?;
        let ours: String = trusted.into_iter().map(|certificate| pem(&certificate)).collect();
        let system: String =
            rustls_native_certs::load_native_certs().certs.iter().map(|one| pem(one)).collect();
        let environment = Self { facts, folder };
        fs::write(environment.ca(), &ours)?;
        fs::write(environment.bundle(), system + &ours)?;
        fs::write(environment.preload(), PRELOAD)?;
        Ok(environment)
    }

    /// Returns what functions sign with.
    pub(crate) fn key(&self) -> &AccessKey {
        &self.facts.key
    }

    /// Returns the `domainName` that a function's events have, given its own if it has one.
    pub(crate) fn domain<'e>(&'e self, own: Option<&'e str>) -> &'e str {
        own.unwrap_or(&self.facts.domain)
    }

    /// Returns what a function is started with, given its own `domainName` and the hosts that are
    /// elsewhere for it. The operator's variables for it are stronger; `NODE_OPTIONS` wants both.
    pub(crate) fn variables(
        &self,
        own: Option<&str>,
        hosts: &HostMap,
    ) -> Vec<(&'static str, String)> {
        let Facts { stage, region, key, mapped, .. } = &self.facts;
        let domain = self.domain(own);
        let scheme = if domain.contains("://") { "" } else { "https://" };
        let bundle = self.bundle().display().to_string();
        let mut variables = vec![
            ("AWS_REGION", region.clone()),
            ("AWS_DEFAULT_REGION", region.clone()),
            ("AWS_ACCESS_KEY_ID", key.id.clone()),
            ("AWS_SECRET_ACCESS_KEY", key.secret.expose().to_owned()),
            ("AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI", format!("{scheme}{domain}/{stage}")),
            ("NODE_EXTRA_CA_CERTS", self.ca().display().to_string()),
            ("AWS_CA_BUNDLE", bundle.clone()),
            ("SSL_CERT_FILE", bundle.clone()),
            ("REQUESTS_CA_BUNDLE", bundle),
        ];
        if let Some(mapped) = mapped
            && !hosts.is_empty()
        {
            let names: Vec<_> = hosts.keys().map(|name| name.to_ascii_lowercase()).collect();
            let path =
                self.preload().display().to_string().replace('\\', r"\\").replace('"', "\\\"");
            variables.push(("MAPPED_HOSTS", format!("{mapped} {}", names.join(" "))));
            variables.push(("NODE_OPTIONS", format!("--require \"{path}\"")));
        }
        if let Some(address) = dynamodb(hosts, region) {
            variables.push(("AWS_ENDPOINT_URL_DYNAMODB", format!("http://{address}")));
        }
        variables
    }

    /// Whom functions trust besides others.
    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// All whom functions trust.
    fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle.pem")
    }

    fn preload(&self) -> PathBuf {
        self.folder.path().join("preload.cjs")
    }
}

/// Returns where the database is that Amazon calls `DynamoDB`, of this region if there are several.
fn dynamodb<'h>(hosts: &'h HostMap, region: &str) -> Option<&'h str> {
    let region_of = |host: &str| {
        let mut labels = host.split('.');
        let is_dynamodb = labels.next().is_some_and(|label| label.eq_ignore_ascii_case("dynamodb"));
        let region = labels.next()?.to_owned();
        let is_amazon = labels.next().is_some_and(|label| label.eq_ignore_ascii_case("amazonaws"));
        (is_dynamodb && is_amazon).then_some(region)
    };
    let tables =
        hosts.iter().filter_map(|(host, address)| Some((region_of(host)?, address.as_str())));
    let found = tables.min_by_key(|(other, _)| !other.eq_ignore_ascii_case(region));
    found.map(|(_, address)| address)
}

/// Returns how a function on this host reaches a port.
pub(super) fn reached_at(port: SocketAddr) -> String {
    let address = match port.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, port.port()).to_string()
}

/// Returns the host of a domain, as certificates name it.
pub(super) fn host_of(domain: &str) -> String {
    let domain = domain.split_once("://").map_or(domain, |(_, rest)| rest);
    let authority = domain.split('/').next().unwrap_or_default();
    if let Some((address, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.to_owned();
    }
    authority.split(':').next().unwrap_or_default().to_ascii_lowercase()
}

/// Writes a certificate in PEM.
fn pem(certificate: &CertificateDer<'_>) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for (index, sign) in STANDARD.encode(certificate).chars().enumerate() {
        if index > 0 && index % PEM_COLUMNS == 0 {
            text.push('\n');
        }
        text.push(sign);
    }
    text + "\n-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::config::Secret;

    fn environment() -> Environment {
        let facts = Facts {
            domain: "127.0.0.1:8443".to_owned(),
            stage: "beta".to_owned(),
            region: "eu-west-1".to_owned(),
            key: AccessKey { id: "AKIA".to_owned(), secret: Secret::new("secret") },
            mapped: Some("127.0.0.1:8444".to_owned()),
        };
        let certificate = CertificateDer::from(vec![7; 100]);
        Environment::write(facts, [certificate]).expect("written")
    }

    fn value<'v>(variables: &'v [(&'static str, String)], name: &str) -> Option<&'v str> {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn the_folder_is_private_without_keys_and_goes_with_its_holder() {
        let environment = environment();
        let folder = environment.folder.path().to_owned();
        assert_eq!(fs::metadata(&folder).expect("a folder").permissions().mode() & 0o777, 0o700);
        for entry in fs::read_dir(&folder).expect("a folder") {
            let text = fs::read_to_string(entry.expect("an entry").path()).expect("text");
            assert!(!text.contains("PRIVATE KEY"));
        }
        let read = CertificateDer::from_pem_file(folder.join("ca.pem")).expect("PEM");
        assert_eq!(&*read, [7; 100]);
        drop(environment);
        assert!(!folder.exists());
    }

    #[test]
    fn variables_name_the_domain_and_what_is_trusted() {
        let environment = environment();
        let variables = environment.variables(None, &HostMap::new());
        let endpoint = "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI";
        assert_eq!(value(&variables, endpoint), Some("https://127.0.0.1:8443/beta"));
        assert_eq!(value(&variables, "AWS_REGION"), Some("eu-west-1"));
        assert!(value(&variables, "NODE_EXTRA_CA_CERTS").expect("a path").ends_with("/ca.pem"));
        assert_eq!(value(&variables, "NODE_OPTIONS"), None);
        let own = environment.variables(Some("http://127.0.0.1:9090"), &HostMap::new());
        assert_eq!(value(&own, endpoint), Some("http://127.0.0.1:9090/beta"));
    }

    #[test]
    fn hosts_are_mapped_by_a_preload_and_dynamodb_by_its_variable() {
        let hosts = [
            ("dynamodb.ap-south-1.amazonaws.com", "127.0.0.1:1"),
            ("DynamoDB.eu-west-1.amazonaws.com", "127.0.0.1:2"),
            ("sqs.eu-west-1.amazonaws.com", "127.0.0.1:3"),
        ];
        let hosts = hosts.map(|(host, address)| (host.to_owned(), address.to_owned())).into();
        let variables = environment().variables(None, &hosts);
        assert_eq!(value(&variables, "AWS_ENDPOINT_URL_DYNAMODB"), Some("http://127.0.0.1:2"));
        let mapped = value(&variables, "MAPPED_HOSTS").expect("hosts");
        assert!(
            mapped.starts_with("127.0.0.1:8444 ")
                && mapped.contains(" dynamodb.eu-west-1.amazonaws.com")
        );
        let options = value(&variables, "NODE_OPTIONS").expect("options");
        assert!(options.starts_with("--require \"/") && options.ends_with("/preload.cjs\""));
        assert_eq!(
            dynamodb(&[("a.dynamodb.example".to_owned(), "x".to_owned())].into(), "b"),
            None
        );
    }

    #[test]
    fn ports_and_hosts_are_named_as_functions_see_them() {
        for (port, name) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
        {
            assert_eq!(reached_at(port.parse().expect("an address")), name);
        }
        for (domain, host) in [
            ("Gate:1", "gate"),
            ("http://gate/x", "gate"),
            ("[::1]:1", "::1"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(host_of(domain), host);
        }
    }
}
