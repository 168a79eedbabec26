//! What the library plays: the scenario file, parsed. Pure.

use std::time::Duration;

/// Names of a GPU's values, and what they are when it is idle, steady and hot. Units are NVML's own: Celsius,
/// percent, bytes, milliwatts, MHz; `*_rate` in bytes a second fill the running totals.
pub const FIELDS: &[(&str, [Value; 3])] = &[
    ("temperature", [Is(34), Is(62), Is(93)]),
    ("memory_temperature", [Is(40), Is(71), Is(98)]),
    ("thermal_margin", [Is(55), Is(27), Is(0)]),
    ("utilization", [Is(0), Is(98), Is(99)]),
    ("memory_utilization", [Is(0), Is(45), Is(47)]),
    ("memory_used", [Is(600 << 20), Is(60 << 30), Is(60 << 30)]),
    (
        "memory_reserved",
        [Is(512 << 20), Is(512 << 20), Is(512 << 20)],
    ),
    ("memory_total", [Is(80 << 30), Is(80 << 30), Is(80 << 30)]),
    ("power", [Is(72_000), Is(645_000), Is(690_000)]),
    // Where the energy total began; power is added to it.
    ("energy", [Is(0), Is(0), Is(0)]),
    ("power_limit", [Is(700_000), Is(700_000), Is(700_000)]),
    (
        "power_limit_default",
        [Is(700_000), Is(700_000), Is(700_000)],
    ),
    ("sm_clock", [Is(345), Is(1_980), Is(1_200)]),
    ("memory_clock", [Is(2_619), Is(2_619), Is(2_619)]),
    // 0x1 idle, 0x4 power cap, 0x20 | 0x40 software and hardware thermal slowdown.
    ("reasons", [Is(0x1), Is(0x4), Is(0x68)]),
    ("ecc_corrected", [Is(0), Is(0), Is(0)]),
    ("ecc_uncorrected", [Is(0), Is(0), Is(0)]),
    ("remap_pending", [Is(0), Is(0), Is(0)]),
    ("remap_failure", [Is(0), Is(0), Is(0)]),
    ("pcie_width", [Is(16), Is(16), Is(16)]),
    ("pcie_gen", [Is(1), Is(5), Is(5)]),
    ("pcie_replay", [Is(0), Is(0), Is(0)]),
    ("pcie_tx_rate", [Is(0), Is(200 << 20), Is(200 << 20)]),
    ("pcie_rx_rate", [Is(0), Is(300 << 20), Is(300 << 20)]),
    // GPM: whether there is any, and shares in percent.
    ("gpm", [Is(1), Is(1), Is(1)]),
    ("sm_active", [Is(0), Is(87), Is(87)]),
    ("tensor_active", [Is(0), Is(48), Is(48)]),
    ("dram_active", [Is(0), Is(36), Is(36)]),
    ("nvlinks", [Is(18), Is(18), Is(18)]),
    ("nvlink_tx_rate", [Is(0), Is(18 << 30), Is(18 << 30)]),
    ("nvlink_rx_rate", [Is(0), Is(18 << 30), Is(18 << 30)]),
    ("nvlink_crc", [Is(0), Is(0), Is(0)]),
    ("nvlink_recovery", [Is(0), Is(0), Is(0)]),
    // Boards in servers have no fan of their own.
    ("fan", [Code(3), Code(3), Code(3)]),
];

use Value::{Code, Is};

/// What a GPU answers for one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// The value.
    Is(u64),
    /// An NVML return code instead.
    Code(u32),
}

/// What a call does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Blocks while the scenario says so.
    Hang,
    /// Takes so long, then works.
    Slow(Duration),
    /// Answers this code.
    Answer(u32),
}

/// A GPU as the scenario describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Values, in the order of [`FIELDS`].
    values: Vec<Value>,
    /// Pids and bytes of its compute processes.
    pub processes: Vec<(u32, u64)>,
    /// Not enumerated.
    pub absent: bool,
    /// What calls do; the last that fits counts.
    calls: Vec<(String, Effect)>,
}

/// An event to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number, rising.
    pub number: u64,
    /// Whose event it is.
    pub gpu: usize,
    /// The error code.
    pub xid: u64,
}

/// Everything that the library plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Version of the driver.
    pub driver: String,
    /// Tells the UUIDs of hosts apart.
    pub host: u32,
    /// What `nvmlInit_v2` answers.
    pub init: u32,
    /// Where calls are noted.
    pub trace: Option<String>,
    /// Where it is written down how much CPU time all calls have used, after each wait for events.
    pub spent: Option<String>,
    /// Every GPU, also the absent ones.
    pub gpus: Vec<Gpu>,
    /// Events, by rising number.
    pub events: Vec<Event>,
    calls: Vec<(String, Effect)>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            driver: "570.124.06".to_owned(),
            host: 0,
            init: 0,
            trace: None,
            spent: None,
            gpus: vec![Gpu::default(); 2],
            events: Vec::new(),
            calls: Vec::new(),
        }
    }
}

impl Default for Gpu {
    fn default() -> Self {
        let mut gpu = Self {
            values: Vec::new(),
            processes: Vec::new(),
            absent: false,
            calls: Vec::new(),
        };
        gpu.load(1);
        gpu
    }
}

impl Gpu {
    /// The value of a field. Panics for a name that is not in [`FIELDS`].
    pub fn value(&self, name: &str) -> Value {
        self.values[place(name).expect("a name of FIELDS")]
    }

    /// What a call about this GPU does instead of its work.
    pub fn effect(&self, call: &str) -> Option<Effect> {
        effect(&self.calls, call)
    }

    fn load(&mut self, preset: usize) {
        self.values = FIELDS.iter().map(|(_, values)| values[preset]).collect();
    }
}

impl Scenario {
    /// Reads a scenario. The error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut scenario = Self::default();
        for (line, statement) in text.lines().enumerate() {
            let words: Vec<&str> = statement
                .split('#')
                .next()
                .unwrap_or("")
                .split_whitespace()
                .collect();
            scenario
                .state(&words)
                .map_err(|wrong| format!("line {}: {wrong}: `{statement}`", line + 1))?;
        }
        Ok(scenario)
    }

    /// What a call that is about no GPU does instead of its work.
    pub fn effect(&self, call: &str) -> Option<Effect> {
        effect(&self.calls, call)
    }

    /// The GPUs that are enumerated, in the order of their index.
    pub fn present(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.gpus.len()).filter(|&slot| !self.gpus[slot].absent)
    }

    fn state(&mut self, words: &[&str]) -> Result<(), &'static str> {
        match words {
            [] => {}
            ["gpus", n] => self.gpus.resize(number(n)? as usize, Gpu::default()),
            ["host", n] => self.host = number(n)? as u32,
            ["driver", version] => (*version).clone_into(&mut self.driver),
            ["init", code] => self.init = number(code)? as u32,
            ["trace", path] => self.trace = Some((*path).to_owned()),
            ["spent", path] => self.spent = Some((*path).to_owned()),
            ["call", call, effect] => self.calls.push(((*call).to_owned(), parse_effect(effect)?)),
            ["event", n, "gpu", gpu, "xid", xid] => self.events.push(Event {
                number: number(n)?,
                gpu: number(gpu)? as usize,
                xid: number(xid)?,
            }),
            ["gpu", "*", rest @ ..] => {
                for gpu in &mut self.gpus {
                    describe(gpu, rest)?;
                }
            }
            ["gpu", slot, rest @ ..] => {
                let gpu = self
                    .gpus
                    .get_mut(number(slot)? as usize)
                    .ok_or("no such GPU")?;
                describe(gpu, rest)?;
            }
            _ => return Err("unknown statement"),
        }
        Ok(())
    }
}

/// The UUID of the GPU at a place of a host.
pub fn uuid(host: u32, slot: usize) -> String {
    format!("GPU-{host:08x}-fa4e-4000-8000-{slot:012x}")
}

fn describe(gpu: &mut Gpu, words: &[&str]) -> Result<(), &'static str> {
    match words {
        ["load", "idle"] => gpu.load(0),
        ["load", "steady"] => gpu.load(1),
        ["load", "hot"] => gpu.load(2),
        ["lost"] => gpu.calls.push(("*".to_owned(), Effect::Answer(15))),
        ["reset_required"] => gpu.calls.push(("*".to_owned(), Effect::Answer(16))),
        ["absent"] => gpu.absent = true,
        ["process", pid, bytes] => gpu.processes.push((number(pid)? as u32, number(bytes)?)),
        ["call", call, effect] => gpu.calls.push(((*call).to_owned(), parse_effect(effect)?)),
        [name, value] => {
            let place = place(name).ok_or("unknown value")?;
            gpu.values[place] = parse_value(value)?;
        }
        _ => return Err("unknown statement"),
    }
    Ok(())
}

fn place(name: &str) -> Option<usize> {
    FIELDS.iter().position(|(known, _)| *known == name)
}

fn effect(calls: &[(String, Effect)], call: &str) -> Option<Effect> {
    let fits = |(name, _): &&(String, Effect)| name == "*" || name == call;
    calls.iter().rev().find(fits).map(|(_, effect)| *effect)
}

fn parse_effect(word: &str) -> Result<Effect, &'static str> {
    match word.strip_suffix("ms") {
        _ if word == "hang" => Ok(Effect::Hang),
        Some(ms) => Ok(Effect::Slow(Duration::from_millis(number(ms)?))),
        None => Ok(Effect::Answer(number(word)? as u32)),
    }
}

fn parse_value(word: &str) -> Result<Value, &'static str> {
    match word {
        "none" => Ok(Code(3)),
        "denied" => Ok(Code(4)),
        _ => match word.strip_prefix('!') {
            Some(code) => Ok(Code(number(code)? as u32)),
            None => Ok(Is(number(word)?)),
        },
    }
}

fn number(word: &str) -> Result<u64, &'static str> {
    let parsed = match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => word.parse(),
    };
    parsed.map_err(|_| "not a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_line_overrides_an_earlier_one() {
        let scenario = Scenario::parse(
            "gpus 3\n\
             gpu * load idle   # all of them\n\
             gpu 1 load hot\n\
             gpu 1 temperature 0x51\n\
             gpu 1 fan !4\n\
             gpu 2 call * hang\n\
             gpu 2 call nvmlDeviceGetName 30ms\n\
             event 1 gpu 2 xid 79\n",
        )
        .unwrap();
        assert_eq!(scenario.gpus[0].value("temperature"), Is(34));
        assert_eq!(scenario.gpus[1].value("temperature"), Is(81));
        assert_eq!(scenario.gpus[1].value("reasons"), Is(0x68));
        assert_eq!(scenario.gpus[1].value("fan"), Code(4));
        assert_eq!(
            scenario.gpus[2].effect("nvmlDeviceGetUUID"),
            Some(Effect::Hang)
        );
        let slow = Effect::Slow(Duration::from_millis(30));
        assert_eq!(scenario.gpus[2].effect("nvmlDeviceGetName"), Some(slow));
        assert_eq!(scenario.gpus[0].effect("nvmlDeviceGetName"), None);
        assert_eq!(
            scenario.events,
            [Event {
                number: 1,
                gpu: 2,
                xid: 79
            }]
        );
    }

    #[test]
    fn a_wrong_line_is_named() {
        let check = |text: &str, wrong: &str| {
            assert_eq!(Scenario::parse(text).unwrap_err(), wrong);
        };
        check("gpus 1\nfoo", "line 2: unknown statement: `foo`");
        check("gpu 0 color 3", "line 1: unknown value: `gpu 0 color 3`");
        check("gpu 7 lost", "line 1: no such GPU: `gpu 7 lost`");
        check("gpus x", "line 1: not a number: `gpus x`");
    }
}
