//! Clients that ask for mapped hosts, and others.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::edge::callback::authority::Authority;
use crate::ops::metrics::Metrics;

const NAME: &str = "dynamodb.us-east-1.amazonaws.com";
const SOON: Duration = Duration::from_secs(10);

/// Ports for mapped hosts, and who may be asked about them.
struct Place {
    hosts: Arc<Hosts>,
    metrics: Metrics,
    connector: TlsConnector,
}

/// A client that trusts this authority.
fn trusting(authority: &Authority) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn place(address: &str) -> Place {
    let authority = Authority::make().expect("a CA");
    let (metrics, names) =
        (Metrics::new().expect("metrics"), [NAME.to_owned(), "other.example".to_owned()]);
    let counted = TlsMetrics::register(&metrics).expect("metrics");
    // The certificate has a name more than is mapped.
    let identity = authority.leaf(names.clone()).expect("a certificate");
    let hosts = Hosts {
        acceptor: tls::named(identity, [NAME]).expect("an acceptor"),
        addresses: [(NAME.to_owned(), address.to_owned())].into(),
        handshake_timeout: Duration::from_millis(200),
        lifecycle: Lifecycle::new(),
        memory: Gauge::default(),
        handshakes: counted.port("hosts"),
        metrics: counted,
    };
    Place { hosts: Arc::new(hosts), metrics, connector: trusting(&authority) }
}

/// Listens for `places` clients; to be called within the runtime.
fn listen(place: &Place, places: usize) -> std::net::SocketAddr {
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = listener.local_addr().expect("an address");
    place
        .hosts
        .lifecycle
        .spawn_until_end("hosts", Arc::clone(&place.hosts).accept(listener, places));
    address
}

async fn connect(
    connector: &TlsConnector,
    at: std::net::SocketAddr,
    name: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let stream = TcpStream::connect(at).await?;
    timeout(SOON, connector.connect(name, stream)).await.expect("in time")
}

/// Takes one connection, reads it to its end, and only then answers.
async fn answer_at_the_end(upstream: TcpListener) {
    let (mut stream, _) = upstream.accept().await.expect("a connection");
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.expect("read");
    text.reverse();
    stream.write_all(&text).await.expect("written");
}

async fn counts(place: &Place, line: &str) {
    let seen = async {
        loop {
            let text = String::from_utf8(place.metrics.render().expect("text")).expect("UTF-8");
            if text.lines().any(|one| one.split_once('_').is_some_and(|(_, one)| one == line)) {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, seen).await.unwrap_or_else(|_| panic!("never counted: {line}"));
}

#[tokio::test]
async fn bytes_go_where_the_name_is_mapped_to_and_half_closes_are_kept() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let place = place(&upstream.local_addr().expect("an address").to_string());
    let at = listen(&place, 1);
    place.hosts.lifecycle.spawn(answer_at_the_end(upstream));
    let mut client = connect(&place.connector, at, NAME).await.expect("a session");
    let sent: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    client.write_all(&sent).await.expect("written");
    client.shutdown().await.expect("half a close");
    let mut received = Vec::new();
    timeout(SOON, client.read_to_end(&mut received)).await.expect("in time").expect("read");
    received.reverse();
    assert_eq!(received, sent);
    counts(&place, "mapped_host_connections_total{outcome=\"done\"} 1").await;
    counts(&place, "tls_handshakes_total{outcome=\"ok\",port=\"hosts\"} 1").await;
    assert_eq!(place.hosts.memory.get(), 0);
}

#[tokio::test]
async fn names_that_are_not_mapped_are_refused_and_so_is_what_is_no_tls() {
    let place = place("127.0.0.1:1");
    let at = listen(&place, 8);
    connect(&place.connector, at, "other.example")
        .await
        .expect_err("it is in the certificate, and not mapped");
    connect(&place.connector, at, "127.0.0.1").await.expect_err("an address is no name");
    let stranger = trusting(&Authority::make().expect("another CA"));
    connect(&stranger, at, NAME).await.expect_err("signed by somebody else");
    counts(&place, "tls_handshakes_total{outcome=\"failed\",port=\"hosts\"} 3").await;
    let mut plain = TcpStream::connect(at).await.expect("a connection");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
    counts(&place, "tls_handshakes_total{outcome=\"plain\",port=\"hosts\"} 1").await;
    let mut slow = TcpStream::connect(at).await.expect("a connection");
    slow.write_all(b"\x16\x03\x01").await.expect("written");
    counts(&place, "tls_handshakes_total{outcome=\"timeout\",port=\"hosts\"} 1").await;
}

#[tokio::test]
async fn a_host_that_is_away_is_told_by_an_end() {
    let unused = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = unused.local_addr().expect("an address").to_string();
    drop(unused);
    let place = place(&address);
    let at = listen(&place, 1);
    let mut client = connect(&place.connector, at, NAME).await.expect("a session");
    let read = timeout(SOON, client.read(&mut [0])).await.expect("in time");
    assert!(read.is_err() || read.is_ok_and(|length| length == 0));
    counts(&place, "mapped_host_connections_total{outcome=\"unreachable\"} 1").await;
}

#[tokio::test]
async fn there_are_so_many_connections_and_the_idle_are_ended() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let place = place(&upstream.local_addr().expect("an address").to_string());
    let at = listen(&place, 1);
    let first = connect(&place.connector, at, NAME).await.expect("a session");
    connect(&place.connector, at, NAME).await.expect_err("there is one place");
    counts(&place, "mapped_host_connections_total{outcome=\"busy\"} 1").await;
    drop(first);
    counts(&place, "mapped_host_connections_total{outcome=\"done\"} 1").await;
    let own = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = own.local_addr().expect("an address");
    let (hosts, began) = (Arc::clone(&place.hosts), Instant::now());
    place.hosts.lifecycle.spawn(async move {
        let (stream, _) = own.accept().await.expect("a connection");
        hosts.carry(stream, Duration::from_millis(100)).await;
    });
    let mut client = connect(&place.connector, at, NAME).await.expect("a session");
    while began.elapsed() < Duration::from_millis(300) {
        client.write_all(b"x").await.expect("what is not idle is not ended");
        sleep(Duration::from_millis(10)).await;
    }
    counts(&place, "mapped_host_connections_total{outcome=\"idle\"} 1").await;
}
