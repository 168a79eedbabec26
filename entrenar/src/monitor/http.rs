//! A small HTTP/1.1 server on threads: enough for a scraper, and no more.
//!
//! It answers GET and HEAD, one request a connection, and speaks no TLS. Whoever is slow, long-winded or too many is
//! turned away, so that a page of metrics never costs more than a few threads.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clock;

/// Connections served at once. More get a 503 and are closed.
const MAX_CONNECTIONS: usize = 16;

/// Bytes of a request's head. A longer one gets a 431.
const MAX_REQUEST_BYTES: usize = 8 * 1024;

/// For the whole request to arrive. A slower one gets a 408.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// For the whole response to be taken. A slower client is cut off.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(10);

/// What a client may still send after it was turned away, before the connection is closed under it.
const MAX_DRAINED_BYTES: usize = 64 * 1024;
const DRAIN_DEADLINE: Duration = Duration::from_millis(500);

/// What goes back to a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: Status,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

/// The statuses that this server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    HeadTooLarge,
    Unavailable,
}

impl Status {
    const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

impl Response {
    /// A line of text for people.
    pub(super) fn text(status: Status, text: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: text.into() + "\n",
        }
    }
}

/// Ends a server from any thread.
#[derive(Clone, Debug)]
pub(super) struct Stopper {
    stop: Arc<AtomicBool>,
    addr: SocketAddr,
}

impl Stopper {
    /// Takes no more connections; those in hand are finished.
    pub(super) fn stop(&self) {
        if !self.stop.swap(true, Ordering::SeqCst) {
            // The thread that accepts waits for a connection: here is one. Without it the next client wakes it.
            let _ = TcpStream::connect_timeout(&reachable(self.addr), Duration::from_secs(1));
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// An address under which a listener on all interfaces can be reached from here.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// Serves `respond`, which is given the path without its query, from threads until stopped.
pub(super) fn serve(
    listener: TcpListener,
    respond: impl Fn(&str) -> Response + Send + Sync + 'static,
) -> io::Result<(Stopper, JoinHandle<()>)> {
    let stopper = Stopper {
        stop: Arc::new(AtomicBool::new(false)),
        addr: listener.local_addr()?,
    };
    let stop = stopper.stop.clone();
    let thread = thread::Builder::new()
        .name("metrics-http".to_owned())
        .spawn(move || accept(&listener, &stop, &Arc::new(respond)))?;
    Ok((stopper, thread))
}

fn accept<R>(listener: &TcpListener, stop: &AtomicBool, respond: &Arc<R>)
where
    R: Fn(&str) -> Response + Send + Sync + 'static,
{
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else {
            // Out of file descriptors, for example: a moment later there may be some.
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let Some(place) = Place::take(&open) else {
            refuse(stream);
            continue;
        };
        let respond = respond.clone();
        // Without a thread the stream is dropped: the client sees a closed connection and comes again.
        let _ = thread::Builder::new()
            .name("metrics-conn".to_owned())
            .spawn(move || {
                let _place = place;
                // A client that goes away in the middle is its own affair.
                let _ = converse(stream, respond.as_ref());
            });
    }
}

/// One of the [`MAX_CONNECTIONS`], given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(open.clone());
        let before = open.fetch_add(1, Ordering::SeqCst);
        (before < MAX_CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Turns a client away without waiting for its request: the thread that accepts must not be held up.
fn refuse(mut stream: TcpStream) {
    let response = Response::text(Status::Unavailable, "too many connections: try again later");
    let _ = stream.set_nonblocking(true);
    let _ = stream.write(&encode(&response, false));
}

fn converse(mut stream: TcpStream, respond: impl Fn(&str) -> Response) -> io::Result<()> {
    let (response, head_only) = match read_head(&mut stream) {
        Ok(head) => match parse(&head) {
            Ok(Request { path, head_only }) => (respond(path), head_only),
            Err(refusal) => (refusal, false),
        },
        Err(refusal) => (refusal, false),
    };
    let bytes = encode(&response, head_only);
    write_by(&mut stream, &bytes, clock::instant() + RESPONSE_DEADLINE)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    drain(&mut stream);
    Ok(())
}

/// Reads up to the empty line that ends a request's head.
fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>, Response> {
    let until = clock::instant() + REQUEST_DEADLINE;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= MAX_REQUEST_BYTES {
            let text = format!("a request head has at most {MAX_REQUEST_BYTES} bytes");
            return Err(Response::text(Status::HeadTooLarge, text));
        }
        match read_by(stream, &mut buffer, until) {
            Ok(0) => {
                return Err(Response::text(
                    Status::BadRequest,
                    "the request ended early",
                ));
            }
            Ok(n) => head.extend_from_slice(&buffer[..n]),
            Err(_) => {
                let text = "the request did not come in time";
                return Err(Response::text(Status::RequestTimeout, text));
            }
        }
    }
    Ok(head)
}

#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    path: &'a str,
    head_only: bool,
}

/// Reads the request line. Header fields and a body mean nothing to this server.
fn parse(head: &[u8]) -> Result<Request<'_>, Response> {
    let bad = || Response::text(Status::BadRequest, "this is not an HTTP/1 request");
    let line = head.split(|c| *c == b'\r').next().unwrap_or_default();
    let mut words = std::str::from_utf8(line).map_err(|_| bad())?.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad());
    };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return Err(bad());
    }
    let path = target.split('?').next().unwrap_or(target);
    match method {
        "GET" => Ok(Request {
            path,
            head_only: false,
        }),
        "HEAD" => Ok(Request {
            path,
            head_only: true,
        }),
        _ => Err(Response::text(Status::MethodNotAllowed, "use GET or HEAD")),
    }
}

fn encode(response: &Response, head_only: bool) -> Vec<u8> {
    let allow = match response.status {
        Status::MethodNotAllowed => "Allow: GET, HEAD\r\n",
        _ => "",
    };
    let mut text = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        response.status.line(),
        response.content_type,
        response.body.len(),
    );
    if !head_only {
        text.push_str(&response.body);
    }
    text.into_bytes()
}

/// Lets the client read its answer before the connection goes: closing over unread bytes would reset it.
fn drain(stream: &mut TcpStream) {
    let until = clock::instant() + DRAIN_DEADLINE;
    let mut buffer = [0; 4096];
    let mut n_drained = 0;
    while n_drained < MAX_DRAINED_BYTES {
        match read_by(stream, &mut buffer, until) {
            Ok(n) if n > 0 => n_drained += n,
            _ => return,
        }
    }
}

fn read_by(stream: &mut TcpStream, buffer: &mut [u8], until: Instant) -> io::Result<usize> {
    stream.set_read_timeout(Some(left(until)?))?;
    stream.read(buffer)
}

fn write_by(stream: &mut TcpStream, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(until)?))?;
        match stream.write(bytes)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => bytes = &bytes[n..],
        }
    }
    Ok(())
}

/// Time left, never zero: a timeout of zero would mean "for ever".
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(clock::instant());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> Status {
        match parse(request.as_bytes()) {
            Ok(_) => Status::Ok,
            Err(refusal) => refusal.status,
        }
    }

    #[test]
    fn only_get_and_head_of_http_1_are_understood() {
        assert_eq!(
            status("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
            Status::Ok
        );
        assert_eq!(status("HEAD / HTTP/1.0\r\n\r\n"), Status::Ok);
        assert_eq!(
            status("POST /metrics HTTP/1.1\r\n\r\n"),
            Status::MethodNotAllowed
        );
        for bad in [
            "",
            "GET",
            "GET /metrics",
            "GET metrics HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET / HTTP/2.0",
            "PRI * HTTP/2.0",
            "\u{0}\u{1}",
        ] {
            assert_eq!(status(bad), Status::BadRequest, "{bad:?}");
        }
        assert_eq!(
            parse(b"GET / \xff\r\n\r\n").unwrap_err().status,
            Status::BadRequest
        );
    }

    #[test]
    fn a_query_is_not_part_of_the_path() {
        let request = parse(b"GET /metrics?name[]=x HTTP/1.1\r\n\r\n").expect("it is a request");
        assert_eq!(
            request,
            Request {
                path: "/metrics",
                head_only: false
            }
        );
    }

    /// A server that answers with the path. It ends with the test.
    struct Echo(Stopper, Option<JoinHandle<()>>);

    impl Echo {
        fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let (stopper, thread) =
                serve(listener, |path| Response::text(Status::Ok, path)).expect("it starts");
            Self(stopper, Some(thread))
        }

        fn connect(&self) -> TcpStream {
            TcpStream::connect(self.0.addr()).expect("it listens")
        }

        fn ask(&self, request: &[u8]) -> String {
            let mut stream = self.connect();
            stream.write_all(request).expect("it takes the request");
            let mut answer = String::new();
            stream
                .read_to_string(&mut answer)
                .expect("it answers and closes");
            answer
        }
    }

    impl Drop for Echo {
        fn drop(&mut self) {
            self.0.stop();
            self.1.take().map(JoinHandle::join);
        }
    }

    #[test]
    fn a_request_is_answered_and_the_connection_closed() {
        let echo = Echo::start();
        assert_eq!(
            echo.ask(b"GET /x HTTP/1.1\r\nHost: y\r\n\r\n"),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\
             Connection: close\r\n\r\n/x\n"
        );
        let head = echo.ask(b"HEAD /x HTTP/1.1\r\n\r\n");
        assert!(
            head.contains("Content-Length: 3\r\n") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        let post = echo.ask(b"POST /x HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi");
        assert!(
            post.starts_with("HTTP/1.1 405 ") && post.contains("Allow: GET, HEAD"),
            "{post}"
        );
    }

    #[test]
    fn a_head_without_end_is_refused_and_the_refusal_arrives() {
        let long = [b'x'; MAX_REQUEST_BYTES + 5000];
        assert!(Echo::start().ask(&long).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn silent_connections_beyond_the_bound_are_turned_away_and_places_come_back() {
        let echo = Echo::start();
        let silent: Vec<_> = (0..MAX_CONNECTIONS).map(|_| echo.connect()).collect();
        let mut refused = String::new();
        echo.connect()
            .read_to_string(&mut refused)
            .expect("it answers and closes");
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
        drop(silent);
        // Their threads see the end of the silent connections in their own time.
        let served = std::iter::repeat_with(|| {
            let mut stream = echo.connect();
            // A refusal may reset the connection under this write and read.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        })
        .take(10_000)
        .any(|answer| answer.starts_with("HTTP/1.1 200 "));
        assert!(served);
    }
}
