//! Stories of traces: what is written is read again, and what is broken is said.

use std::io::{self, Read};
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::backend::{Depth, GpuBackend, GpuError};
use crate::clock::Clock;
use crate::metric::{self, NvmlStatus};
use crate::sim::{Recorder, Scenario, SimFleet};

/// Reads a text: rows, and errors by what they say.
fn read(text: &str) -> (Vec<Row>, Vec<String>) {
    let source = io::Cursor::new(text.to_owned());
    match TraceReader::new(source) {
        Ok(reader) => split(reader),
        Err(error) => (vec![], vec![error.to_string()]),
    }
}

fn split(reader: TraceReader) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    for row in reader {
        match row {
            Ok(row) => rows.push(row),
            Err(error) => errors.push(error.to_string()),
        }
    }
    (rows, errors)
}

/// Rows of a simulated fleet in trouble, a tick every ten seconds.
fn simulated(ticks: u64) -> Vec<Row> {
    let mut fleet = SimFleet::new(&Scenario::DemoDefault.config(8, 2)).expect("fits");
    let mut recorder = Recorder::new(&fleet);
    (1..=ticks)
        .flat_map(|tick| {
            let now = fleet.start() + Duration::from_secs(10 * tick);
            recorder.tick(&mut fleet, now)
        })
        .collect()
}

fn written(rows: &[Row], name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join(name);
    let mut writer = TraceWriter::create(&path).expect("writable");
    for row in rows {
        writer.write(row).expect("writable");
    }
    writer.finish().expect("writable");
    (dir, path)
}

#[test]
fn a_simulated_fleet_is_read_as_it_was_written_plain_gzip_and_zstd() {
    let rows = simulated(75);
    assert!(rows.iter().any(|row| row.xids == [63]));
    assert!(
        rows.iter()
            .any(|row| row.event == Some(TraceEvent::AgentStart))
    );
    for name in ["t.csv", "t.csv.gz", "t.csv.zst"] {
        let (_dir, path) = written(&rows, name);
        let (again, errors) = split(TraceReader::open(&path).expect("readable"));
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(again, rows, "{name}");
    }
}

#[test]
fn the_excerpt_that_ships_can_be_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/demo-2x2.csv");
    let (rows, errors) = split(TraceReader::open(path.as_ref()).expect("readable"));
    assert_eq!((rows.len(), errors.len()), (36, 0));
    let first = &rows[0];
    assert_eq!(first.time, Timestamp::from_secs(1_700_000_010));
    assert_eq!((first.node.as_str(), first.gpu), ("n01", Some(0)));
    assert_eq!(first.job.as_deref(), Some("4711"));
    assert_eq!(first.values.get(metric::POWER), Some(539_444));
    assert_eq!(first.values.get(metric::ENERGY), Some(679_257_824_849));
    assert_eq!(first.values.get(metric::FAN_SPEED), None);
}

#[test]
fn columns_are_found_by_name_and_unknown_ones_are_named_once() {
    let text = "colour,node,xid,power_watts,time,gpu,shape\nred,n01,48;63,414.9,1700000000.25,3,\n";
    let reader = TraceReader::new(io::Cursor::new(text)).expect("readable");
    assert_eq!(
        reader.warnings(),
        ["columns that mean nothing here are ignored: colour, shape"]
    );
    let (rows, errors) = split(reader);
    assert!(errors.is_empty(), "{errors:?}");
    let mut expected = Row::new(Timestamp(1_700_000_000_250), "n01".into(), Some(3));
    expected.xids = vec![48, 63];
    expected.values.set(metric::POWER, 414_900);
    assert_eq!(rows, [expected]);
}

#[test]
fn an_empty_cell_is_not_a_zero() {
    let (rows, _) =
        read("time,node,gpu,temperature_celsius,nvml_status\n1,n01,0,,\n1,n01,1,0,OK\n");
    assert_eq!(rows[0].values.get(metric::TEMPERATURE), None);
    assert_eq!(rows[0].values.get(metric::NVML_STATUS), None);
    assert_eq!(rows[1].values.get(metric::TEMPERATURE), Some(0));
    assert_eq!(
        rows[1].values.get(metric::NVML_STATUS),
        Some(NvmlStatus::Ok as i64)
    );
}

#[test]
fn a_file_that_is_no_trace_is_refused_in_words() {
    let check = |text: &str, expected: &str| {
        let (rows, errors) = read(text);
        assert!(rows.is_empty());
        assert!(
            errors.len() == 1 && errors[0].contains(expected),
            "{text:?}: {errors:?}"
        );
    };
    check("", "no header line");
    check("\n\n", "no header line");
    check("1700000000,n01,0,45\n", "no header line");
    check("node,gpu\nn01,0\n", "no `time` column");
    check("time,gpu\n1,0\n", "no `node` column");
    check("time,node,gpu,time\n", "`time` twice");
    check("timestamp, name\n", "no `index` column");
    check(&"x".repeat(100_000), "no header line");
}

#[test]
fn a_malformed_row_is_named_with_its_line_and_skipped() {
    let check = |row: &str, expected: &str| {
        // Enough good rows around it to stay under one percent.
        let good = "1,n01,0,45,OK,,\n".repeat(200);
        let header = "time,node,gpu,temperature_celsius,nvml_status,xid,interval_seconds\n";
        let (rows, errors) = read(&format!("{header}{good}{row}\n{good}"));
        assert_eq!(rows.len(), 400, "{row}");
        assert_eq!(errors.len(), 1, "{row}: {errors:?}");
        assert!(errors[0].starts_with("line 202: "), "{errors:?}");
        assert!(errors[0].contains(expected), "{row}: {errors:?}");
    };
    check("1,n01,0,45", "does not have 7 cells");
    check("1,n01,0,45,OK,,,", "does not have 7 cells");
    check(",n01,0,45,OK,,", "the time is missing");
    check("1,,0,45,OK,,", "the node is missing");
    check(
        "soon,n01,0,45,OK,,",
        "`soon` is not a value of column `time`",
    );
    check("-5,n01,0,45,OK,,", "column `time`");
    check("1,n01,-1,45,OK,,", "column `gpu`");
    check("1,n01,0,warm,OK,,", "column `temperature_celsius`");
    check("1,n01,0,NaN,OK,,", "column `temperature_celsius`");
    check("1,n01,0,45,FINE,,", "column `nvml_status`");
    check("1,n01,0,45,OK,x;y,", "column `xid`");
    check("1,n01,0,45,OK,,-1", "column `interval_seconds`");
    check("1,\"n01,0,45,OK,,", "a quoted cell does not end");
    check("1,\"n01\"x,0,45,OK,,", "text follows a quoted cell");
    check(&"y".repeat(200_000), "longer than");
}

#[test]
fn more_than_one_percent_of_malformed_rows_ends_in_an_error() {
    let trace = |good: usize, bad: usize| {
        let good = "1,n01,0\n".repeat(good);
        read(&format!("time,node,gpu\n{good}{}", "x,n01,0\n".repeat(bad)))
    };
    let (rows, errors) = trace(99, 1);
    assert_eq!((rows.len(), errors.len()), (99, 1));
    let (rows, errors) = trace(98, 1);
    assert_eq!((rows.len(), errors.len()), (98, 2));
    assert!(
        errors[1].contains("1 of 99 rows are malformed"),
        "{errors:?}"
    );
}

#[test]
fn a_file_that_is_cut_off_ends_in_an_error() {
    let (_dir, path) = written(&simulated(30), "t.csv.gz");
    let mut whole = Vec::new();
    std::fs::File::open(path)
        .and_then(|mut f| f.read_to_end(&mut whole))
        .expect("readable");
    whole.truncate(whole.len() / 2);
    let (rows, errors) = split(TraceReader::new(io::Cursor::new(whole)).expect("begins well"));
    assert!(!rows.is_empty());
    assert!(
        errors
            .last()
            .is_some_and(|e| e.contains("damaged or cut off")),
        "{errors:?}"
    );
}

#[test]
fn quotes_line_ends_and_a_byte_order_mark_are_understood() {
    let (rows, errors) =
        read("\u{feff}time,node,gpu,job\r\n1,\"n,1\",0,\"say \"\"hi\"\"\"\r\n\r\n2,n2,,\r\n");
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(rows[0].node.as_str(), "n,1");
    assert_eq!(rows[0].job.as_deref(), Some("say \"hi\""));
    assert_eq!((rows[1].node.as_str(), rows[1].gpu), ("n2", None));
}

#[test]
fn an_event_of_a_later_version_costs_no_row() {
    let source = "time,node,gpu,event\n1,n01,,goodbye\n2,n01,,levitates\n3,n01,,sings\n";
    let mut reader = TraceReader::new(io::Cursor::new(source)).expect("readable");
    let events: Vec<_> = reader
        .by_ref()
        .map(|row| row.expect("well formed").event)
        .collect();
    assert_eq!(events, [Some(TraceEvent::Goodbye), None, None]);
    assert_eq!(reader.warnings().len(), 1);
    assert!(reader.warnings()[0].ends_with("levitates"));
}

#[test]
fn the_log_of_nvidia_smi_is_a_trace_of_one_node() {
    let (rows, errors) = read(
        "timestamp, index, uuid, name, temperature.gpu, utilization.gpu [%], utilization.memory [%], \
         memory.used [MiB], memory.total [MiB], power.draw [W], power.limit [W], clocks.current.sm [MHz]\n\
         2024/07/16 02:30:02.271, 1, GPU-5a, NVIDIA H100 80GB HBM3, 47, 98 %, 38 %, 59648 MiB, 81559 MiB, 414.90 W, [N/A], 1980 MHz\n\
         2024/07/16 02:30:03.272, 1, GPU-5a, NVIDIA H100 80GB HBM3, 47, 98, 38, 59648, 81559, 414.90, 700.00, 1980\n",
    );
    assert!(errors.is_empty(), "{errors:?}");
    let row = &rows[0];
    assert_eq!(row.time, Timestamp(1_721_097_002_271));
    assert_eq!((row.node.as_str(), row.gpu), ("localhost", Some(1)));
    assert_eq!(row.model.as_deref(), Some("NVIDIA H100 80GB HBM3"));
    assert_eq!(row.values.get(metric::MEMORY_USED), Some(59_648 << 20));
    assert_eq!(row.values.get(metric::POWER), Some(414_900));
    assert_eq!(row.values.get(metric::POWER_LIMIT), None);
    assert_eq!(row.values.get(metric::SM_CLOCK), Some(1980));
    assert_eq!(rows[1].values.get(metric::POWER_LIMIT), Some(700_000));
    assert_eq!(rows[1].values.get(metric::UTILIZATION), Some(98));
}

prop_compose! {
    fn any_values()(cells in proptest::collection::vec((0..metric::METRIC_COUNT, -(1i64 << 60)..1i64 << 60), 0..20)) -> Values {
        let mut values = Values::default();
        for (slot, value) in cells {
            let metric = metric::CATALOGUE[slot].id;
            values.set(metric, match metric {
                metric::NVML_STATUS => value.rem_euclid(6),
                metric::PROCESS_STATE => value.rem_euclid(4),
                _ => value,
            });
        }
        values
    }
}

fn any_text() -> impl Strategy<Value = Option<Arc<str>>> {
    proptest::option::of("[^\r\n]{1,12}".prop_map(Arc::from))
}

prop_compose! {
    fn any_row()(
        time in 0i64..4_000_000_000_000,
        node in "[^\r\n]{1,12}",
        gpu in proptest::option::of(any::<u32>()),
        texts in (any_text(), any_text(), any_text(), any_text(), any_text(), any_text(), any_text()),
        values in any_values(),
        xids in proptest::collection::vec(0u64..1000, 0..3),
        event in proptest::option::of(0usize..5),
        kind in 0usize..4,
        arrived in proptest::option::of(0i64..4_000_000_000_000),
        interval in proptest::option::of(0u64..100_000),
    ) -> Row {
        let kinds = [JobKind::Unknown, JobKind::Train, JobKind::Inference, JobKind::Interactive];
        let (uuid, model, job, rank_group, rack, switch, power_feed) = texts;
        Row {
            uuid: uuid.map(GpuUuid), model, job, rank_group, rack, switch, power_feed, values, xids,
            job_kind: kinds[kind],
            event: event.map(|n| TraceEvent::ALL[n]),
            arrived: arrived.map(Timestamp),
            interval: interval.map(Duration::from_millis),
            ..Row::new(Timestamp(time), node.as_str().into(), gpu)
        }
    }
}

/// Memory that a test can still read when the writer is gone.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_row_is_read_as_it_was_written(rows in proptest::collection::vec(any_row(), 1..8)) {
        let memory = Shared::default();
        let mut writer = TraceWriter::new(memory.clone()).expect("memory");
        for row in &rows {
            writer.write(row).expect("memory");
        }
        writer.finish().expect("memory");
        let bytes = memory.0.lock().expect("not poisoned").clone();
        let (again, errors) = split(TraceReader::new(io::Cursor::new(bytes)).expect("readable"));
        prop_assert_eq!(errors, Vec::<String>::new());
        prop_assert_eq!(again, rows);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut text = b"time,node,gpu,power_watts\n".to_vec();
        text.extend(&bytes);
        let rows = TraceReader::new(io::Cursor::new(text)).map_or(0, |reader| split(reader).0.len());
        prop_assert!(rows <= bytes.len());
        let _ = TraceReader::new(io::Cursor::new(bytes)).map(split);
    }
}

/// A clock that stands still until it is moved.
struct Hands(Mutex<Duration>);

impl Hands {
    fn move_to(&self, secs: u64) {
        *self.0.lock().expect("not poisoned") = Duration::from_secs(secs);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000) + self.monotonic()
    }
    fn monotonic(&self) -> Duration {
        *self.0.lock().expect("not poisoned")
    }
}

const STORY: &str = "\
time,node,gpu,uuid,job,job_kind,temperature_celsius,nvml_status,xid
100,n01,0,GPU-a,,,40,,
100,n02,0,GPU-c,,,90,,
101,n01,0,GPU-a,7,train,41,,
102,n01,0,GPU-a,7,train,42,,63
103,n01,0,GPU-a,7,train,,GPU_IS_LOST,79
113,n01,0,GPU-a,,,50,,
";

/// A replay, what moves its clock, and the folder that its trace lies in.
type Replay = (Arc<Hands>, ReplayBackend, tempfile::TempDir);

fn replay(node: Option<&str>, at_end: AtEnd) -> Result<Replay, TraceError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("story.csv");
    std::fs::write(&path, STORY).expect("writable");
    let hands = Arc::new(Hands(Mutex::default()));
    let clock = Arc::clone(&hands) as Arc<dyn Clock>;
    let backend = ReplayBackend::open(&path, node, at_end, clock);
    Ok((hands, backend?, dir))
}

#[test]
fn a_replay_tells_the_node_s_past_as_its_present() {
    let (hands, backend, _dir) = replay(Some("n01"), AtEnd::Stop).expect("opens");
    let gpus = backend.inventory().expect("there");
    assert_eq!((gpus.len(), gpus[0].uuid.as_str()), (1, "GPU-a"));
    let temperature = || {
        backend
            .read(&gpus[0], Depth::Fast)
            .map(|v| v.get(metric::TEMPERATURE))
    };
    let job = || backend.holder(&gpus[0]).flatten().map(|holder| holder.job);

    assert_eq!((temperature(), job()), (Ok(Some(40)), None));
    hands.move_to(2);
    assert_eq!((temperature(), job()), (Ok(Some(42)), Some("7".to_owned())));
    hands.move_to(3);
    assert_eq!(temperature(), Err(GpuError::Lost { device: 0 }));
    let events = backend.events(Duration::ZERO).expect("two");
    let at: Vec<_> = events
        .iter()
        .map(|event| event.at.as_secs_f64() - 1_800_000_000.0)
        .collect();
    assert_eq!(at, [2.0, 3.0]);
    // Rows come every 3.25 s on average: after three of those, silence is no sample.
    hands.move_to(12);
    assert_eq!(
        backend.read(&gpus[0], Depth::Full),
        Err(GpuError::Lost { device: 0 })
    );
    hands.move_to(13);
    assert_eq!(temperature(), Ok(Some(50)));
    hands.move_to(40);
    assert_eq!(temperature(), Ok(None));
    assert!(backend.is_over());
}

#[test]
fn a_replay_keeps_the_contract_of_every_backend() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/demo-2x2.csv");
    let clock = Arc::new(Hands(Mutex::default()));
    let backend = ReplayBackend::open(path.as_ref(), Some("n01"), AtEnd::Loop, clock);
    crate::backend::contract::check(&backend.expect("opens"));
}

#[test]
fn a_replay_that_loops_begins_again() {
    let (hands, backend, _dir) = replay(Some("n01"), AtEnd::Loop).expect("opens");
    let gpu = &backend.inventory().expect("there")[0];
    let temperature = || {
        backend
            .read(gpu, Depth::Fast)
            .map(|v| v.get(metric::TEMPERATURE))
    };
    hands.move_to(14);
    assert_eq!(temperature(), Ok(Some(50)));
    // 13 s of trace and one mean interval make a round.
    hands.move_to(17);
    assert_eq!(temperature(), Ok(Some(40)));
    assert!(!backend.is_over());
}

#[test]
fn a_replay_needs_a_node_that_the_trace_has() {
    for node in [None, Some("n09")] {
        let error = replay(node, AtEnd::Stop)
            .map(|_| ())
            .expect_err("refused")
            .to_string();
        assert!(error.contains("it has: n01, n02"), "{error}");
    }
}
