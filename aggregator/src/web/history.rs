//! The past, as the web side asks for it: the line first, then the store.
//!
//! What is sealed or committed between the two is then seen twice, and a double is dropped; the other way round it would be
//! seen by neither.

use std::collections::HashMap;

use entrenar::gpu::{GpuUuid, NodeId};
use entrenar::metric::Metric;
use entrenar::report::HolderChange;
use entrenar::unit::Timestamp;

use super::Web;
use super::api::Answer;
use crate::query::Question;
use crate::query::fleet::{Fleet, of_many as of_many_gpus};
use crate::query::function::Function;
use crate::query::holding::Holding;
use crate::query::select::{Filter, Seat};
use crate::query::source::{Source, side_by_side};
use crate::query::step::Steps;
use crate::store::NodeEvent;

/// A counter's last reading before the first step is looked for this far back: else the first step would miss what was
/// gained since.
const LEAD_IN: std::time::Duration = std::time::Duration::from_mins(5);

/// GPUs whose latest samples the line is asked for at a time: it does nothing else meanwhile, for some 10 us a GPU.
const RECENT_AT_ONCE: usize = 256;

/// Where the GPUs sit that are asked for.
pub(super) async fn seats(web: &Web, filter: &Filter) -> Answer<Vec<Seat>> {
    let filter = filter.clone();
    Ok(web.line.ask(move |line| line.seats(&filter)).await?)
}

/// One metric of one GPU, to be read.
pub(super) async fn source<'a>(
    web: &'a Web,
    gpu: &GpuUuid,
    metric: &Metric,
    (from, to): (Timestamp, Timestamp),
) -> Answer<Source<'a>> {
    let question = Question {
        gpu: gpu.clone(),
        metric: metric.id,
        from,
        to,
    };
    let asked = question.clone();
    let recent = web.line.ask(move |line| line.recent(&asked)).await?;
    Ok(Source::new(web.store.as_ref(), question, recent))
}

/// One metric of some GPUs, to be folded into steps.
pub(super) async fn of_many<'a>(web: &'a Web, fleet: Fleet<'_>) -> Answer<Vec<Source<'a>>> {
    let (metric, extent) = (fleet.metric, fleet.extent);
    let recent = async |gpus: Vec<GpuUuid>, steps: Option<Steps>| {
        let mut recent = Vec::with_capacity(gpus.len());
        for asked in gpus.chunks(RECENT_AT_ONCE) {
            let asked = asked.to_vec();
            let asking =
                (web.line).ask(move |line| line.recent_of(&asked, metric, extent, steps.as_ref()));
            recent.extend(asking.await?);
        }
        Ok(recent)
    };
    of_many_gpus(web.store.as_ref(), fleet, recent).await
}

/// Some metrics of one GPU, to be read side by side.
pub(super) async fn sources<'a>(
    web: &'a Web,
    gpu: &GpuUuid,
    metrics: &[&'static Metric],
    (from, to): (Timestamp, Timestamp),
) -> Answer<Vec<Source<'a>>> {
    if let [metric] = metrics {
        return Ok(vec![source(web, gpu, metric, (from, to)).await?]);
    }
    let of_gpu = gpu.clone();
    let recent = web
        .line
        .ask(move |line| line.recent_samples(&of_gpu, from, to));
    let recent = recent.await?;
    let metrics: Vec<_> = metrics.iter().map(|metric| metric.id).collect();
    let store = web.store.as_ref();
    Ok(side_by_side(store, gpu, &metrics, (from, to), &recent))
}

/// What must be read for these steps, so that each of these functions can be told.
pub(super) fn extent(steps: &Steps, functions: &[Function]) -> (Timestamp, Timestamp) {
    let from = steps.from();
    let from = if functions.iter().any(|function| function.looks_back()) {
        from - LEAD_IN
    } else {
        from
    };
    (from, steps.to())
}

/// What the agents of these nodes reported, ascending by time.
pub(super) async fn events(
    web: &Web,
    nodes: &[NodeId],
    (from, to): (Timestamp, Timestamp),
) -> Answer<Vec<NodeEvent>> {
    let recent = web.line.ask(|line| line.recent_events()).await?;
    let mut events = web.store.events(nodes, from, to).await?;
    let is_new = |event: &NodeEvent| {
        let at = event.event.at;
        from <= at && at <= to && nodes.contains(&event.node) && !events.contains(event)
    };
    let new: Vec<_> = recent.into_iter().filter(is_new).collect();
    events.extend(new);
    events.sort_by_key(|event| event.event.at);
    Ok(events)
}

/// Who held these GPUs when.
pub(super) async fn holdings(
    web: &Web,
    seats: &[Seat],
    (from, to): (Timestamp, Timestamp),
) -> Answer<HashMap<GpuUuid, Holding>> {
    let recent = web.line.ask(|line| line.recent_holders()).await?;
    let gpus: Vec<GpuUuid> = seats.iter().map(|seat| seat.uuid.clone()).collect();
    let stored = web.store.holders(&gpus, from, to).await?;
    let mut changes: HashMap<GpuUuid, Vec<HolderChange>> =
        gpus.into_iter().map(|gpu| (gpu, Vec::new())).collect();
    for change in stored.into_iter().chain(recent) {
        if let Some(of_gpu) = changes.get_mut(&change.gpu) {
            of_gpu.push(change);
        }
    }
    let holding = |(gpu, changes)| (gpu, Holding::of(changes));
    Ok(changes.into_iter().map(holding).collect())
}
