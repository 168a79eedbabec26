//! One simulated GPU: its load since the last change, and what NVML would say of it now. *(pure)*

use super::activity::{Activity, Rates};
use super::effect::is_busy;
use super::job::SimMillis;
use super::noise::{between, hash, mix};
use super::physics::{Drive, Extra, Feel, Heat};
use super::plan::Slot;
use crate::gpu::Values;
use crate::metric::{self, NvmlStatus, clock_reason};

/// While its temperature decides about its clocks, a GPU is looked at this often.
const THERMAL_STEP_MS: SimMillis = 1_000;
/// Share of the clock that is left when the hardware slows a hot GPU down.
const HOT_CLOCK_SHARE: f64 = 0.55;
/// Kelvin that are left of a lost cooling while the board rests.
const REST: Extra = Extra::Kelvin {
    kelvin: 10.0,
    lag_s: 30.0,
};
/// The hardware lets go this far below the slowdown temperature.
const RELEASE_KELVIN: f64 = 4.0;

/// A GPU at its latest change.
#[derive(Clone, Debug)]
pub(crate) struct SimGpu {
    slot: Slot,
    /// Counted seconds a simulated second.
    pace: f64,
    activity: Activity,
    heat: Heat,
    since: SimMillis,
    until: SimMillis,
    throttled: bool,
    totals: Rates,
    /// The instant that it has been advanced to, and what the board feels then: what every reading goes by.
    now: SimMillis,
    feel: Feel,
    /// What its readings stay at while they are frozen.
    frozen: Option<Box<Values>>,
}

impl SimGpu {
    /// A GPU that has done at `now` what it does then for hours.
    pub(crate) fn new(slot: Slot, index: u32, now: SimMillis, pace: f64) -> Self {
        let (activity, until) = slot.activity(now);
        let uptime_s = between(hash(&[slot.seed, 41]), 3.0, 40.0) * 86_400.0;
        let joules = uptime_s * between(hash(&[slot.seed, 42]), 150.0, 500.0);
        let drive = drive_of(&activity, Extra::None);
        let heat = Heat::settled(slot.board, slot.seed, index, drive, secs(now), joules);
        let feel = heat.feel(secs(now), pace);
        Self {
            now,
            feel,
            totals: worked_before(&slot, uptime_s),
            slot,
            pace,
            activity,
            heat,
            since: now,
            until,
            throttled: false,
            frozen: None,
        }
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Lives on until `now`. Time that lies behind the latest change is ignored.
    pub(crate) fn advance_to(&mut self, now: SimMillis) {
        while self.until <= now {
            self.change(self.until);
        }
        self.feel_at(now.max(self.since));
    }

    fn feel_at(&mut self, now: SimMillis) {
        self.now = now;
        self.feel = self.heat.feel(secs(now), self.pace);
    }

    /// Takes up at `now` whatever load is due.
    fn change(&mut self, now: SimMillis) {
        self.feel_at(now);
        self.totals = self.totals_now();
        if self.slot.is_reset_at(now) {
            self.totals = Rates {
                network: self.totals.network,
                ..Rates::default()
            };
            self.feel.joules = 0.0;
        }
        self.freeze(now);
        let (activity, mut until) = self.slot.activity(now);
        if self.activity.processes == 0 && activity.processes > 0 {
            // Another process: what it has used counts from nothing.
            (self.totals.cpu, self.totals.read, self.totals.write) = (0.0, 0.0, 0.0);
        }
        let uncooled = self.slot.is_uncooled(now);
        let reasons = clock_reason::HW_SLOWDOWN | clock_reason::HW_THERMAL;
        let slowed = activity.slowed(self.slot.board, HOT_CLOCK_SHARE, reasons);
        self.throttled = self.is_throttled(self.feel.celsius, uncooled, slowed.watts);
        if uncooled || self.throttled {
            until = until.min(now + THERMAL_STEP_MS);
        }
        self.activity = if self.throttled { slowed } else { activity };
        let (extra, ends) = match (uncooled, self.throttled) {
            (false, _) => match self.slot.extra_heat(now) {
                // While it waits, nothing holds the temperature up.
                (Extra::HoldAt { .. }, ends) if !is_busy(self.slot.board, &self.activity) => {
                    (REST, ends)
                }
                extra => extra,
            },
            (true, false) => (Extra::Uncooled, until),
            (true, true) => (Extra::HeldByHardware, until),
        };
        until = until.min(ends);
        let drive = drive_of(&self.activity, extra);
        self.heat.drive(drive, secs(now), &self.feel);
        self.since = now;
        self.feel.busy_secs = 0.0;
        self.until = until;
    }

    /// Keeps what it reads when its readings freeze, and lets go of it when they thaw.
    fn freeze(&mut self, now: SimMillis) {
        match (self.slot.is_frozen(now), self.frozen.is_some()) {
            (true, false) => {
                let mut values = Values::default();
                self.fast(&mut values);
                self.slow(&mut values);
                self.frozen = Some(Box::new(values));
            }
            (false, true) => self.frozen = None,
            _ => {}
        }
    }

    /// Whether the hardware holds the clocks down: from the slowdown temperature on, until even full clocks would not
    /// bring it back there.
    fn is_throttled(&self, celsius: f64, uncooled: bool, slowed_watts: f64) -> bool {
        // What cuts the clocks for another reason holds the temperature itself.
        if !uncooled && !self.throttled {
            return false;
        }
        let slowdown = self.slot.board.slowdown_celsius;
        let released = slowdown - RELEASE_KELVIN;
        if self.throttled && uncooled {
            released < self.heat.uncooled_celsius(slowed_watts)
        } else if self.throttled {
            released < celsius
        } else {
            slowdown <= celsius
        }
    }

    /// Running totals at the instant that it has been advanced to.
    fn totals_now(&self) -> Rates {
        let secs = self.feel.busy_secs * self.pace;
        let (was, rate) = (&self.totals, &self.activity.rates);
        Rates {
            active: [0, 1, 2].map(|n| was.active[n] + rate.active[n] * secs),
            pcie_tx: was.pcie_tx + rate.pcie_tx * secs,
            pcie_rx: was.pcie_rx + rate.pcie_rx * secs,
            nvlink: was.nvlink + rate.nvlink * secs,
            network: was.network + rate.network * secs,
            cpu: was.cpu + rate.cpu * secs,
            read: was.read + rate.read * secs,
            write: was.write + rate.write * secs,
        }
    }

    /// Its share of the node's RDMA traffic, in bytes.
    pub(crate) fn network_bytes(&self) -> f64 {
        let secs = self.feel.busy_secs * self.pace;
        self.totals.network + self.activity.rates.network * secs
    }

    /// Seconds that SMs, tensor pipes and memory were busy, so far.
    pub(crate) fn active_secs(&self) -> [f64; 3] {
        let secs = self.feel.busy_secs * self.pace;
        [0, 1, 2].map(|n| self.totals.active[n] + self.activity.rates.active[n] * secs)
    }

    /// What changes with every tick, as NVML rounds it.
    pub(crate) fn fast(&self, values: &mut Values) {
        let now = self.now;
        let board = self.slot.board;
        let activity = &self.activity;
        let feel = &self.feel;
        let totals = self.totals_now();
        // The same noise in the whole second, whoever asks how often.
        let noise = mix(self.slot.seed ^ (now / 1000) as u64);
        let pick = |(low, high): (i64, i64), salt: u32| {
            low + (noise >> salt) as i64 % 64 * (high - low + 1) / 64
        };
        let ratio = |r: f64, salt: u32| ppm(r * (0.97 + (noise >> salt & 63) as f64 / 1050.0));
        // A sensor has noise of its own, which no energy comes from.
        let sensor = activity.jitter_watts * ((noise >> 46 & 255) as f64 / 170.0 - 0.75);

        values.set(metric::TEMPERATURE, feel.celsius as i64);
        values.set(metric::UTILIZATION, pick(activity.utilization, 1));
        values.set(
            metric::MEMORY_UTILIZATION,
            pick(activity.memory_utilization, 8),
        );
        values.set(metric::MEMORY_USED, self.memory_used(now));
        values.set(metric::MEMORY_TOTAL, board.memory_total_bytes);
        values.set(metric::POWER, ((feel.watts + sensor) * 1e3) as i64);
        values.set(metric::ENERGY, (feel.joules * 1e3) as i64);
        values.set(metric::SM_CLOCK, self.sm_clock(noise));
        values.set(metric::CLOCK_EVENT_REASONS, activity.clock_reasons);
        values.set(metric::PCIE_TX, whole_kib(totals.pcie_tx));
        values.set(metric::PCIE_RX, whole_kib(totals.pcie_rx));
        values.set(metric::NVLINK_TX, whole_kib(totals.nvlink));
        values.set(metric::NVLINK_RX, whole_kib(totals.nvlink));
        if board.is_hopper_or_later {
            let active = &activity.rates.active;
            values.set(metric::SM_ACTIVE, ratio(active[0], 20));
            values.set(metric::TENSOR_ACTIVE, ratio(active[1], 26));
            values.set(metric::DRAM_ACTIVE, ratio(active[2], 32));
        }
        values.set(metric::NVML_STATUS, NvmlStatus::Ok as i64);
        values.set(metric::NVML_LATENCY, 3_000 + (noise >> 40) as i64 % 4_000);
        self.slot.withhold(now, values);
        if let Some(frozen) = &self.frozen {
            let energy = values.get(metric::ENERGY);
            values.overlay(frozen);
            values.set(metric::ENERGY, energy);
        }
    }

    /// What changes slowly.
    pub(crate) fn slow(&self, values: &mut Values) {
        let now = self.now;
        let board = self.slot.board;
        let feel = &self.feel;
        let limit = (board.power_limit_watts * 1e3) as i64;
        let margin = board.max_operating_celsius - feel.celsius;
        values.set(metric::MEMORY_TEMPERATURE, (feel.celsius + 9.0) as i64);
        if board.is_hopper_or_later {
            values.set(metric::THERMAL_MARGIN, margin.floor() as i64);
        }
        values.set(metric::POWER_LIMIT, limit);
        values.set(metric::POWER_LIMIT_DEFAULT, limit);
        values.set(metric::MEMORY_CLOCK, board.memory_clock_mhz);
        values.set(metric::PCIE_LINK_WIDTH, 16);
        // Without a context the link idles at the lowest generation, by design.
        let is_off = self.activity.clock_reasons & clock_reason::GPU_IDLE != 0;
        values.set(
            metric::PCIE_LINK_GEN,
            if is_off { 1 } else { board.pcie_gen },
        );
        values.set(metric::NVLINK_ACTIVE_LINKS, board.nvlinks);
        for counter in [
            metric::PCIE_REPLAY,
            metric::NVLINK_CRC_ERRORS,
            metric::NVLINK_RECOVERY,
            metric::ECC_CORRECTED,
            metric::ECC_UNCORRECTED,
        ] {
            values.set(counter, self.slot.counted(counter, now));
        }
        values.set(metric::REMAPPED_ROWS_PENDING, 0);
        values.set(metric::REMAPPED_ROWS_FAILURE, 0);
        self.slot.mark(now, values);
        self.processes(values);
        if let Some(frozen) = &self.frozen {
            let energy = values.get(metric::ENERGY);
            values.overlay(frozen);
            values.set(metric::ENERGY, energy);
        }
    }

    fn processes(&self, values: &mut Values) {
        values.set(metric::PROCESSES, self.activity.processes);
        if self.activity.processes > 0 {
            let totals = self.totals_now();
            values.set(metric::PROCESS_STATE, self.activity.process_state);
            values.set(metric::PROCESS_CPU, (totals.cpu * 1e3) as i64);
            values.set(metric::PROCESS_READ, totals.read as i64);
            values.set(metric::PROCESS_WRITE, totals.write as i64);
        }
    }

    fn memory_used(&self, now: SimMillis) -> i64 {
        const GRAIN: i64 = 64 * 1024;
        let memory = &self.activity.memory;
        let grown = memory.bytes_per_second * (now - self.since) as f64 / 1e3;
        (memory.bytes + grown) as i64 / GRAIN * GRAIN
    }

    /// Under its power cap the clock dithers, in steps of 15 MHz.
    fn sm_clock(&self, noise: u64) -> i64 {
        let capped = self.activity.clock_reasons & clock_reason::SW_POWER_CAP != 0;
        let dither = if capped { (noise >> 52) as i64 % 6 } else { 0 };
        self.activity.sm_clock_mhz - 15 * dither
    }
}

fn drive_of(activity: &Activity, extra: Extra) -> Drive {
    Drive {
        watts: activity.watts,
        jitter_watts: activity.jitter_watts,
        extra,
    }
}

/// Running totals of a past that nobody saw.
fn worked_before(slot: &Slot, uptime_s: f64) -> Rates {
    let part = |salt: u64, most: f64| between(hash(&[slot.seed, salt]), 0.1, 1.0) * most * uptime_s;
    Rates {
        active: [0.0; 3],
        pcie_tx: part(43, 3e7),
        pcie_rx: part(44, 6e7),
        nvlink: part(45, 8e9),
        network: part(46, 1e9),
        cpu: part(47, 0.02),
        read: part(48, 1e6),
        write: part(49, 1e5),
    }
}

fn secs(ms: SimMillis) -> f64 {
    ms as f64 / 1e3
}

fn ppm(ratio: f64) -> i64 {
    (ratio * 1e6) as i64
}

fn whole_kib(bytes: f64) -> i64 {
    bytes as i64 / 1024 * 1024
}
