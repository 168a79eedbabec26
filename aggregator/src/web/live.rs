//! The event stream: lights and incidents as they change; samples only of the node that is looked at.
//!
//! A client that is too slow skips events and is told how many, so that it can fetch the state anew.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use entrenar::gpu::NodeId;
use futures_util::stream::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::Web;
use super::api::{Answer, QueryOf};

/// Events that a client may be behind before it skips.
const CLIENT_BACKLOG: usize = 1024;

/// Silence on the stream is broken this often, so that a lost connection is seen.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    Light,
    Incident,
    Sample,
}

impl Topic {
    const fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Incident => "incident",
            Self::Sample => "sample",
        }
    }
}

/// An event, rendered once for all clients.
#[derive(Debug)]
pub struct LiveEvent {
    pub topic: Topic,
    /// For samples: of which node.
    pub node: Option<NodeId>,
    /// JSON.
    pub data: String,
}

/// Where events are sent, and who looks at which node.
#[derive(Debug)]
pub struct Live {
    events: broadcast::Sender<Arc<LiveEvent>>,
    watched: Mutex<HashMap<NodeId, usize>>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            events: broadcast::channel(CLIENT_BACKLOG).0,
            watched: Mutex::default(),
        }
    }
}

impl Live {
    pub fn has_clients(&self) -> bool {
        self.events.receiver_count() > 0
    }

    pub fn is_watched(&self, node: &NodeId) -> bool {
        self.watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(node)
    }

    pub fn send(&self, event: LiveEvent) {
        // An error means that nobody listens.
        let _ = self.events.send(Arc::new(event));
    }

    fn watch(self: &Arc<Self>, node: NodeId) -> Watch {
        *self
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(node.clone())
            .or_default() += 1;
        Watch {
            live: Arc::clone(self),
            node,
        }
    }
}

/// Someone looks at a node, for as long as this lives.
struct Watch {
    live: Arc<Live>,
    node: NodeId,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self
            .live
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = watched.get_mut(&self.node) {
            *n -= 1;
            if *n == 0 {
                watched.remove(&self.node);
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamQuery {
    events: Option<String>,
    node: Option<String>,
}

/// `GET /api/v1/stream`
pub(super) async fn stream(
    State(web): State<Arc<Web>>,
    QueryOf(query): QueryOf<StreamQuery>,
) -> Answer<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    let topics = topics(query.events.as_deref().unwrap_or("light,incident"))?;
    let node = query.node.map(NodeId::from);
    if topics.contains(&Topic::Sample) && node.is_none() {
        return Err(super::error::Problem::bad_request(
            "`sample` needs `node=NAME`: samples are sent for one node",
        ));
    }
    let watch = topics
        .contains(&Topic::Sample)
        .then(|| node.clone().map(|n| web.live.watch(n)))
        .flatten();
    let hello = json!({
        "cluster": web.cluster,
        "version": env!("CARGO_PKG_VERSION"),
        "now": web.clock.now().rfc3339(),
    });
    let hello = Event::default().event("hello").data(hello.to_string());
    let mut id = 0_u64;
    let events = BroadcastStream::new(web.live.events.subscribe()).filter_map(move |event| {
        // The watch lives as long as the stream.
        let _ = &watch;
        let event = match event {
            Ok(event) if wanted(&event, &topics, node.as_ref()) => {
                Some(Event::default().event(event.topic.name()).data(&event.data))
            }
            Ok(_) => None,
            Err(BroadcastStreamRecvError::Lagged(n)) => Some(
                Event::default()
                    .event("lagged")
                    .data(json!({ "skipped": n }).to_string()),
            ),
        };
        id += 1;
        std::future::ready(event.map(|e| Ok(e.id(id.to_string()))))
    });
    let first = futures_util::stream::iter([Ok(hello)]);
    // Shutdown must not wait for browsers.
    let stop = web.stop.clone().cancelled_owned();
    let events = first.chain(events).take_until(Box::pin(stop));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive")))
}

fn wanted(event: &LiveEvent, topics: &[Topic], node: Option<&NodeId>) -> bool {
    topics.contains(&event.topic) && (event.topic != Topic::Sample || event.node.as_ref() == node)
}

fn topics(text: &str) -> Answer<Vec<Topic>> {
    let topic = |name: &str| match name.trim() {
        "light" => Ok(Topic::Light),
        "incident" => Ok(Topic::Incident),
        "sample" => Ok(Topic::Sample),
        other => Err(super::error::Problem::bad_request(format!(
            "there are no events {other:?}: choose among light, incident, sample"
        ))),
    };
    text.split(',').map(topic).collect()
}
