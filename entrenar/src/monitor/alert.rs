//! What the page's Andon calls out: alerts, how severe they are, and the thresholds that raise them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Thresholds of [`AndonSystem`](super::gpu::AndonSystem). Each is reached at the value itself, not only above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertConfig {
    /// Core temperature, in °C.
    pub thermal_threshold: u32,
    /// Used memory, in percent.
    pub memory_threshold: u32,
    /// Used power limit, in percent.
    pub power_threshold: u32,
    /// How long utilization must stay at 0 %, in seconds.
    pub idle_timeout_secs: u32,
}

impl Default for AlertConfig {
    /// 80 °C, 90 %, 95 %, 5 minutes.
    fn default() -> Self {
        Self {
            thermal_threshold: 80,
            memory_threshold: 90,
            power_threshold: 95,
            idle_timeout_secs: 300,
        }
    }
}

/// Something about a GPU that a person should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GpuAlert {
    /// The GPU is so hot that it will slow down.
    ThermalThrottling {
        /// NVML index.
        device: u32,
        /// Core temperature in °C.
        temp: u32,
        /// Threshold in °C.
        threshold: u32,
    },
    /// The memory is nearly full.
    MemoryPressure {
        /// NVML index.
        device: u32,
        /// Used memory in percent.
        used_percent: u32,
        /// Threshold in percent.
        threshold: u32,
    },
    /// The GPU works at its power limit.
    PowerLimit {
        /// NVML index.
        device: u32,
        /// Used power limit in percent.
        power_percent: u32,
        /// Threshold in percent.
        threshold: u32,
    },
    /// The GPU does nothing: perhaps what uses it hangs.
    GpuIdle {
        /// NVML index.
        device: u32,
        /// For how many seconds.
        duration_secs: u32,
    },
}

impl GpuAlert {
    /// NVML index of the GPU.
    pub const fn device(&self) -> u32 {
        match *self {
            Self::ThermalThrottling { device, .. }
            | Self::MemoryPressure { device, .. }
            | Self::PowerLimit { device, .. }
            | Self::GpuIdle { device, .. } => device,
        }
    }

    /// Which kind, for labels: `thermal_throttling`, `memory_pressure`, `power_limit`, `gpu_idle`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ThermalThrottling { .. } => "thermal_throttling",
            Self::MemoryPressure { .. } => "memory_pressure",
            Self::PowerLimit { .. } => "power_limit",
            Self::GpuIdle { .. } => "gpu_idle",
        }
    }

    /// How severe, from 0 to 100.
    ///
    /// Heat: 50 and one more for each degree above the threshold. Memory: 60, from 95 % 80, from 99 % 100. Power: 50,
    /// from 100 % 70. Idle: 40, after more than 30 s 70, after more than 60 s 90.
    pub const fn severity(&self) -> u32 {
        match *self {
            Self::ThermalThrottling {
                temp, threshold, ..
            } => {
                let above = temp.saturating_sub(threshold);
                50 + if above < 50 { above } else { 50 }
            }
            Self::MemoryPressure {
                used_percent: 99.., ..
            } => 100,
            Self::MemoryPressure {
                used_percent: 95.., ..
            } => 80,
            Self::MemoryPressure { .. } => 60,
            Self::PowerLimit {
                power_percent: 100..,
                ..
            } => 70,
            Self::PowerLimit { .. } => 50,
            Self::GpuIdle {
                duration_secs: 61..,
                ..
            } => 90,
            Self::GpuIdle {
                duration_secs: 31..,
                ..
            } => 70,
            Self::GpuIdle { .. } => 40,
        }
    }

    /// The Andon level of the severity.
    pub const fn level(&self) -> AlertLevel {
        AlertLevel::of_severity(self.severity())
    }

    /// One sentence for people.
    pub fn message(&self) -> String {
        match self {
            Self::ThermalThrottling {
                device,
                temp,
                threshold,
            } => {
                format!("GPU {device} is hot: {temp}°C reached the threshold of {threshold}°C")
            }
            Self::MemoryPressure {
                device,
                used_percent,
                threshold,
            } => format!(
                "GPU {device} is short of memory: {used_percent}% used reached the threshold of {threshold}%"
            ),
            Self::PowerLimit {
                device,
                power_percent,
                threshold,
            } => format!(
                "GPU {device} is near its power limit: {power_percent}% of it reached the threshold of {threshold}%"
            ),
            Self::GpuIdle {
                device,
                duration_secs,
            } => {
                format!(
                    "GPU {device} has been idle for {duration_secs} seconds: what uses it may hang"
                )
            }
        }
    }
}

impl fmt::Display for GpuAlert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

/// The four levels of the Andon, from a note to a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertLevel {
    /// Worth a note. Severity below 50.
    Info,
    /// Someone should know. Severity 50 to 59.
    Warning,
    /// Work should wait. Severity 60 to 79.
    Error,
    /// Work should stop. Severity 80 and above.
    Critical,
}

impl AlertLevel {
    /// The level of a severity.
    pub const fn of_severity(severity: u32) -> Self {
        match severity {
            0..50 => Self::Info,
            50..60 => Self::Warning,
            60..80 => Self::Error,
            80.. => Self::Critical,
        }
    }

    /// The level's name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for AlertLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AlertLevel::{Critical, Error, Info, Warning};

    fn hot(temp: u32, threshold: u32) -> GpuAlert {
        GpuAlert::ThermalThrottling {
            device: 0,
            temp,
            threshold,
        }
    }
    fn memory(used_percent: u32) -> GpuAlert {
        GpuAlert::MemoryPressure {
            device: 0,
            used_percent,
            threshold: 90,
        }
    }
    fn power(power_percent: u32) -> GpuAlert {
        GpuAlert::PowerLimit {
            device: 0,
            power_percent,
            threshold: 95,
        }
    }
    fn idle(duration_secs: u32) -> GpuAlert {
        GpuAlert::GpuIdle {
            device: 0,
            duration_secs,
        }
    }

    #[test]
    fn severity_and_level_follow_the_table() {
        let check = |alert: GpuAlert, severity, level| {
            assert_eq!(
                (alert.severity(), alert.level()),
                (severity, level),
                "{alert}"
            );
        };
        check(hot(80, 80), 50, Warning);
        check(hot(85, 80), 55, Warning);
        check(hot(90, 80), 60, Error);
        check(hot(110, 80), 80, Critical);
        check(hot(999, 80), 100, Critical);
        check(hot(70, 80), 50, Warning);
        check(memory(90), 60, Error);
        check(memory(95), 80, Critical);
        check(memory(99), 100, Critical);
        check(power(98), 50, Warning);
        check(power(100), 70, Error);
        check(idle(30), 40, Info);
        check(idle(31), 70, Error);
        check(idle(61), 90, Critical);
        check(idle(600), 90, Critical);
    }

    #[test]
    fn a_message_names_the_gpu_the_value_and_the_threshold() {
        let check = |alert: GpuAlert, words: &[&str]| {
            let message = alert.message();
            for word in words {
                assert!(message.contains(word), "{word:?} in {message:?}");
            }
        };
        check(hot(85, 80), &["GPU 0", "85°C", "80°C"]);
        check(memory(96), &["GPU 0", "96%", "90%"]);
        check(power(98), &["GPU 0", "98%", "95%"]);
        check(idle(600), &["GPU 0", "600 seconds"]);
    }
}
