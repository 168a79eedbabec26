//! JSON that is sent in parts: `{head…,"items":[…]}` without the whole text in memory.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use serde::Serialize;

/// Text of a part: items are put together up to it, so that small ones do not make a part each.
const PART_BYTES: usize = 64 * 1024;

/// The object `head`, with one list more: `key`.
pub(super) fn listing<T: Serialize + 'static>(
    head: &impl Serialize,
    key: &str,
    items: impl IntoIterator<Item = T, IntoIter: Send + 'static>,
) -> Response {
    let mut parts = Parts {
        items: items.into_iter(),
        text: opening(head, key),
        is_first: true,
        is_over: false,
    };
    let parts = std::iter::from_fn(move || parts.next()).map(Ok::<_, Infallible>);
    let mut response = Response::new(Body::from_stream(stream::iter(parts)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn opening(head: &impl Serialize, key: &str) -> Vec<u8> {
    let mut text = serde_json::to_vec(head).unwrap_or_default();
    text.pop();
    let comma = if text.len() > 1 { "," } else { "" };
    text.extend(format!("{comma}\"{key}\":[").bytes());
    text
}

struct Parts<I> {
    items: I,
    text: Vec<u8>,
    is_first: bool,
    is_over: bool,
}

impl<T: Serialize, I: Iterator<Item = T>> Parts<I> {
    fn next(&mut self) -> Option<Vec<u8>> {
        while !self.is_over && self.text.len() < PART_BYTES {
            if let Some(item) = self.items.next() {
                self.write(&item);
            } else {
                self.text.extend(b"]}");
                self.is_over = true;
            }
        }
        let part = std::mem::replace(&mut self.text, Vec::with_capacity(PART_BYTES));
        (!part.is_empty()).then_some(part)
    }

    fn write(&mut self, item: &T) {
        if !std::mem::take(&mut self.is_first) {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, item)
            .expect("our views have texts for keys, and memory takes every byte");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    async fn body(head: Value, items: Vec<Value>) -> Value {
        let response = listing(&head, "items", items);
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        serde_json::from_slice(&bytes.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn the_parts_are_one_object() {
        let none = body(json!({}), Vec::new()).await;
        assert_eq!(none, json!({ "items": [] }));
        let long = "x".repeat(PART_BYTES / 2);
        let items = vec![json!(1), json!(long), json!(long), json!({ "a": 2 })];
        let all = body(json!({ "unit": "watts" }), items.clone()).await;
        assert_eq!(all, json!({ "unit": "watts", "items": items }));
    }
}
