//! Prometheus' remote write: protobuf, compressed with snappy, over HTTP. Labels are packed once.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};
use entrenar::unit::Timestamp;
use prost::Message;
use prost::encoding::encode_varint;

use super::labels::Label;

/// `prometheus.TimeSeries`.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<WireLabel>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<WireSample>,
}

/// `prometheus.Label`.
#[derive(Clone, PartialEq, Message)]
pub struct WireLabel {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `prometheus.Sample`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct WireSample {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(int64, tag = "2")]
    pub timestamp_ms: i64,
}

/// A series without its samples, packed.
pub struct PackedLabels(Vec<u8>);

impl PackedLabels {
    pub fn new(labels: &[Label]) -> Self {
        let label = |(name, value): &Label| WireLabel {
            name: (*name).to_owned(),
            value: value.clone(),
        };
        let series = TimeSeries {
            labels: labels.iter().map(label).collect(),
            samples: Vec::new(),
        };
        Self(series.encode_to_vec())
    }

    /// Appends this series with one sample to a request.
    pub fn append(&self, at: Timestamp, value: f64, request: &mut Vec<u8>) {
        let sample = WireSample {
            value,
            timestamp_ms: at.0,
        };
        let length = sample.encoded_len();
        // Field 1 of the request, with field 2 of the series inside: both shorter than 128 bytes of head.
        request.push(0x0a);
        encode_varint((self.0.len() + 2 + length) as u64, request);
        request.extend_from_slice(&self.0);
        request.push(0x12);
        request.push(length as u8);
        sample.encode_raw(request);
    }
}

/// A connection that requests are sent over, one after the other.
pub struct Receiver {
    host: String,
    path: String,
    stream: BufReader<TcpStream>,
    encoder: snap::raw::Encoder,
}

impl Receiver {
    pub fn connect(host: &str, path: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).with_context(|| format!("no server at {host}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            host: host.to_owned(),
            path: path.to_owned(),
            stream: BufReader::new(stream),
            encoder: snap::raw::Encoder::new(),
        })
    }

    /// Sends a request and waits until it is taken. Answers how many bytes its body had.
    pub fn send(&mut self, request: &[u8]) -> Result<u64> {
        let body = self.encoder.compress_vec(request)?;
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
             X-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
            self.path,
            self.host,
            body.len()
        );
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(&body)?;
        self.taken()?;
        Ok(body.len() as u64)
    }

    fn taken(&mut self) -> Result<()> {
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                bail!("{} closed the connection", self.host);
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        if status
            .split(' ')
            .nth(1)
            .is_none_or(|code| !code.starts_with('2'))
        {
            let said = String::from_utf8_lossy(&body);
            bail!("{} refused: {} {said}", self.host, status.trim_end());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `prometheus.WriteRequest`.
    #[derive(Clone, PartialEq, Message)]
    struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        timeseries: Vec<TimeSeries>,
    }

    #[test]
    fn what_is_packed_by_hand_is_what_the_protocol_says() {
        let labels = [("__name__", "up".to_owned()), ("job", "j".repeat(300))];
        let packed = PackedLabels::new(&labels);
        let mut request = Vec::new();
        packed.append(Timestamp(1_700_000_000_000), 0.5, &mut request);
        packed.append(Timestamp(1_700_000_015_000), 0.0, &mut request);
        let read = WriteRequest::decode(request.as_slice()).unwrap();
        assert_eq!(read.timeseries.len(), 2);
        let [first, second] = [&read.timeseries[0], &read.timeseries[1]];
        assert_eq!(first.labels[1].value, labels[1].1);
        assert_eq!(first.samples[0].timestamp_ms, 1_700_000_000_000);
        assert!((first.samples[0].value - 0.5).abs() < f64::EPSILON);
        assert_eq!(second.samples[0].timestamp_ms, 1_700_000_015_000);
    }
}
