//! `GET /api/v1/export`: stored history as a trace, sent while it is read.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::report::GpuEventKind;
use entrenar::trace::{Row, TraceError, TraceWriter};
use entrenar::unit::Timestamp;
use futures_util::{StreamExt as _, stream};
use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use super::Web;
use super::api::{Answer, QueryOf};
use super::error::Problem;
use super::history;
use super::params::Params;
use crate::query::export::{Slice, Slices, samples};
use crate::query::holding::Holding;
use crate::query::select::Seat;
use crate::store::NodeEvent;

/// Rows that are written before anybody else has a turn: some milliseconds.
const PART_ROWS: usize = 1000;

pub(super) async fn export(
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    QueryOf(words): QueryOf<Vec<(String, String)>>,
) -> Answer<Response> {
    let mut words = Params::new(words, web.clock.now());
    let range = words.range()?;
    let filter = words.filter()?;
    let job = words.one("job")?;
    words.finish()?;
    let permit = web.gate.export().await?;
    let mut seats = history::seats(&web, &filter).await?;
    // A row says where its GPU sits.
    seats.retain(|seat| seat.place.is_some());
    if seats.is_empty() {
        return Err(Problem::not_found(
            "no GPU that is known is like that: /api/v1/gpus lists them. Of one whose node was forgotten the history is in /api/v1/series?uuid=",
        ));
    }
    let holdings = history::holdings(&web, &seats, range).await?;
    if let Some(job) = &job {
        let held = |holding: &Holding| holding.is_of(job, range.0, range.1);
        seats.retain(|seat| holdings.get(&seat.uuid).is_some_and(held));
    }
    let is_gzip = takes_gzip(&headers);
    let text = Text::default();
    let writer = if is_gzip {
        TraceWriter::gzip(text.clone())
    } else {
        TraceWriter::new(text.clone())
    };
    let mut export = Export {
        slices: Slices::new(range.0, range.1, &seats),
        web,
        job,
        nodes: nodes_of(&seats),
        seats,
        holdings,
        xids: HashMap::new(),
        writer: Some(writer.map_err(|error| unwritable(&error))?),
        text,
        rows: VecDeque::new(),
        was_empty: false,
        _permit: permit,
    };
    // What goes wrong at once is told as a status; later only a broken answer can tell it.
    let first = export.next().await?;
    let rest = stream::unfold(Some(export), async |export| {
        let mut export = export?;
        match export.next().await {
            Ok(Some(part)) => Some((Ok(part), Some(export))),
            Ok(None) => None,
            Err(problem) => {
                warn!(?problem, "an export was broken off");
                Some((Err(io::Error::other("the history cannot be read on")), None))
            }
        }
    });
    let parts = stream::iter(first.map(Ok)).chain(rest);
    let mut response = Response::new(Body::from_stream(parts));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/csv; charset=utf-8"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if is_gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

fn nodes_of(seats: &[Seat]) -> Vec<NodeId> {
    let places = seats.iter().filter_map(|seat| seat.place.as_ref());
    let nodes: BTreeSet<NodeId> = places.map(|place| place.node.clone()).collect();
    nodes.into_iter().collect()
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value.split(',').any(|coding| {
                let mut words = coding.split(';').map(str::trim);
                words.next() == Some("gzip") && words.all(|word| word != "q=0")
            })
        })
}

fn unwritable(error: &TraceError) -> Problem {
    Problem::new(
        axum::http::StatusCode::INTERNAL_SERVER_ERROR,
        error.to_string(),
    )
}

/// A trace on its way out. Dropping it ends the reading.
struct Export {
    web: Arc<Web>,
    job: Option<String>,
    seats: Vec<Seat>,
    nodes: Vec<NodeId>,
    holdings: HashMap<GpuUuid, Holding>,
    /// Reported, and in no row yet.
    xids: HashMap<GpuUuid, VecDeque<(Timestamp, u64)>>,
    slices: Slices,
    /// None once the end is written.
    writer: Option<TraceWriter>,
    text: Text,
    rows: VecDeque<Row>,
    was_empty: bool,
    _permit: OwnedSemaphorePermit,
}

impl Export {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Answer<Option<Vec<u8>>> {
        loop {
            if !self.rows.is_empty() {
                self.write()?;
            } else if self.writer.is_none() {
                return Ok(None);
            } else if let Some(slice) = self.slices.next(self.was_empty) {
                self.rows = self.read(slice).await?;
                self.was_empty = self.rows.is_empty();
            } else if !self.xids.is_empty() {
                self.rows = self.left_over();
            } else if let Some(writer) = self.writer.take() {
                writer.finish().map_err(|error| unwritable(&error))?;
            }
            let part = self.text.take();
            if !part.is_empty() {
                return Ok(Some(part));
            }
        }
    }

    fn write(&mut self) -> Answer<()> {
        let n = self.rows.len().min(PART_ROWS);
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        for row in self.rows.drain(..n) {
            writer.write(&row).map_err(|error| unwritable(&error))?;
        }
        Ok(())
    }

    async fn read(&mut self, range: (Timestamp, Timestamp)) -> Answer<VecDeque<Row>> {
        let mut slice = Slice::default();
        let nobody = Holding::default();
        self.read_events(range, &mut slice).await?;
        for seat in &self.seats {
            let Some(place) = &seat.place else {
                continue;
            };
            let (gpu, (from, to)) = (seat.uuid.clone(), range);
            let ask = move |line: &mut crate::line::Line| line.recent_samples(&gpu, from, to);
            let recent = self.web.line.ask(ask).await?;
            let found = samples(self.web.store.as_ref(), seat, range, recent).await?;
            let holding = self.holdings.get(&seat.uuid).unwrap_or(&nobody);
            let mut none = VecDeque::new();
            let xids = self.xids.get_mut(&seat.uuid).unwrap_or(&mut none);
            slice.add(place, seat, found, xids, holding, self.job.as_deref());
        }
        self.xids.retain(|_, xids| !xids.is_empty());
        Ok(slice.into_rows())
    }

    /// What was reported within a slice: of GPUs it waits for their rows.
    async fn read_events(
        &mut self,
        range: (Timestamp, Timestamp),
        slice: &mut Slice,
    ) -> Answer<()> {
        for event in history::events(&self.web, &self.nodes, range).await? {
            let NodeEvent { node, event } = event;
            let GpuEventKind::Xid(xid) = event.what;
            if let Some(gpu) = event.gpu {
                if self.seats.iter().any(|seat| seat.uuid == gpu) {
                    self.xids.entry(gpu).or_default().push_back((event.at, xid));
                }
                continue;
            }
            let mut places = self.seats.iter().filter_map(|seat| seat.place.as_ref());
            let place = places.find(|place| place.node == node);
            if let Some(place) = place.filter(|_| self.job.is_none()) {
                slice.add_xid(event.at, place, None, xid);
            }
        }
        Ok(())
    }

    /// What was reported after the last row of its GPU.
    fn left_over(&mut self) -> VecDeque<Row> {
        let mut slice = Slice::default();
        let xids = std::mem::take(&mut self.xids);
        let seats = self.seats.iter().filter(|_| self.job.is_none());
        for (seat, place) in seats.filter_map(|seat| Some((seat, seat.place.as_ref()?))) {
            for (at, xid) in xids.get(&seat.uuid).into_iter().flatten() {
                slice.add_xid(*at, place, Some(seat), *xid);
            }
        }
        slice.into_rows()
    }
}

/// What the writer wrote and was not sent yet.
#[derive(Clone, Debug, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Text {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_gzip_gets_it() {
        let takes = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            takes_gzip(&headers)
        };
        assert!(takes("gzip") && takes("br, gzip;q=0.5, *"));
        assert!(!takes("br") && !takes("gzip;q=0") && !takes("") && !takes("xgzip"));
    }
}
