//! What each XID means, how much it matters and what to do: NVIDIA's catalogue, with what fleets have learned.
//!
//! Source: NVIDIA's XID catalogue (2025-10) and the public findings of large fleets. A code that is not here is a
//! warning: contact support.

use super::super::{Kind, Severity};

/// Whose fault it most likely is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The program that runs on the GPU.
    Application,
    /// The hardware.
    Hardware,
    /// The driver or the GPU's firmware.
    Driver,
    /// A link between GPUs.
    Link,
    /// Nothing is wrong.
    Notice,
    /// Another event's: never a reason to call anyone.
    Victim,
    /// Says more about another event; never an incident of its own.
    Detail,
}

impl Class {
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Hardware => "hardware",
            Self::Driver => "driver or firmware",
            Self::Link => "link",
            Self::Notice => "notice",
            Self::Victim => "follows another event",
            Self::Detail => "detail of another event",
        }
    }
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    /// First and last code that it stands for.
    codes: (u64, u64),
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    pub(crate) severity: Severity,
    pub(crate) action: &'static str,
}

/// What is said of a code that the table does not have.
const UNLISTED: Row = Row {
    codes: (0, u64::MAX),
    name: "unlisted error",
    class: Class::Driver,
    severity: Severity::Warning,
    action: "Contact NVIDIA support with the kernel's log and nvidia-bug-report.",
};

/// The row of a code.
pub(crate) fn row(code: u64) -> &'static Row {
    let has = |row: &&Row| (row.codes.0..=row.codes.1).contains(&code);
    TABLE.iter().find(has).unwrap_or(&UNLISTED)
}

impl Row {
    /// Whether the table has the code, rather than only an answer for it.
    pub(crate) fn is_listed(&self) -> bool {
        self.codes.1 != u64::MAX
    }
}

macro_rules! table {
    ($($first:literal $(..= $last:literal)?, $class:ident, $severity:ident, $name:literal, $action:expr;)*) => {
        const TABLE: &[Row] = &[$(Row {
            codes: ($first, last!($first $($last)?)),
            name: $name,
            class: Class::$class,
            severity: Severity::$severity,
            action: $action,
        },)*];
    };
}
macro_rules! last {
    ($first:literal) => {
        $first
    };
    ($first:literal $last:literal) => {
        $last
    };
}

const RESTART_APP: &str = "Restart the application.";
const RESTART_APP_LINK: &str =
    "Restart the application. If it happens again, check the GPU's PCIe link.";
const COPY_ENGINE: &str = "Restart the application; tell its owner that a copy failed.";
const LOOK_AT_SOFTWARE: &str =
    "Nothing to do now. If it goes on, look at the driver and the application.";
const RESET: &str = "Drain the GPU and reset it.";
const DRAIN_RESET: &str = "Drain the node and reset the GPU.";
const DRAIN_RESET_REBOOT: &str =
    "Drain the node and reset the GPU; reboot the node if the reset does not come back.";
const REBOOT: &str = "Drain the node and reboot it.";
const REPLACE: &str = "Reset the GPU, run the field diagnostic and have the board replaced.";
const SUPPORT: &str = "Open a support ticket; the GPU may go on.";
const CHECK_UVM: &str = "Check the driver's unified memory (UVM) messages in the kernel's log.";
const NVLINK5: &str = "Decode the kernel's log (intrinfo, errstatus): a fatal one needs a reset, a non-fatal one is a record.";
const NOTHING: &str = "Nothing to do.";

table! {
    8, Driver, Warning, "channel idle timeout: the GPU stopped processing", RESTART_APP;
    11, Application, Warning, "invalid or corrupted push buffer stream", RESTART_APP;
    13, Application, Info, "graphics engine exception", "Restart the application. Twice in 24 h on one GPU: run the extended utility diagnostics (EUD).";
    25, Application, Warning, "invalid or illegal push buffer stream", RESTART_APP;
    31, Application, Info, "GPU memory page fault", "Restart the application; on different GPUs it is the program's own fault. Twice in 24 h on one GPU: run the extended utility diagnostics (EUD).";
    32, Application, Warning, "invalid or corrupted push buffer stream (PBDMA)", RESTART_APP_LINK;
    37, Driver, Info, "driver firmware error", LOOK_AT_SOFTWARE;
    38, Driver, Warning, "driver firmware watchdog", "Reboot the node if it happens again.";
    39..=41, Application, Warning, "copy engine error", COPY_ENGINE;
    43, Victim, Info, "the GPU stopped processing for one application", "Follow the application: it has failed, and the log around it says why.";
    44, Driver, Warning, "fault during context switch", "Reboot the node if it happens again.";
    45, Victim, Info, "preemptive cleanup of a program that ended", "Look for the error before it. Alone on an NVSwitch system: restart the fabric manager.";
    46, Hardware, Critical, "the GPU timed out", RESET;
    48, Hardware, Critical, "double-bit memory error", "Drain the node and reset the GPU. With XID 63 the row was remapped; with XID 64 have the board replaced.";
    54, Hardware, Critical, "auxiliary power is not connected", "Check the power cables of the board.";
    61, Driver, Critical, "internal micro-controller breakpoint", "Drain the node and contact NVIDIA support.";
    62, Hardware, Critical, "internal micro-controller halt", DRAIN_RESET;
    63, Hardware, Warning, "a memory row was remapped or a page retired", "The job may go on. Reset the GPU when it is next idle.";
    64, Hardware, Critical, "row remapping or page retirement failed", REPLACE;
    66..=67, Driver, Info, "illegal access by the driver", LOOK_AT_SOFTWARE;
    68, Application, Warning, "video decoder exception", RESTART_APP;
    69, Application, Warning, "graphics engine class error", RESTART_APP;
    70..=72, Application, Warning, "copy engine error", COPY_ENGINE;
    74, Link, Critical, "NVLink error", "Decode the registers in the kernel's log: bits 21 and 22 of the first mean signal integrity. Drain the node and reset the GPUs at both ends; reseat the link if it happens again.";
    75..=77, Application, Warning, "copy engine error", COPY_ENGINE;
    78, Driver, Warning, "vGPU could not start", "Update the vGPU software.";
    79, Hardware, Critical, "the GPU has fallen off the bus", "Drain the node and reboot it; check PCIe and power. If it happens again, have the board replaced.";
    80, Application, Warning, "corrupted data sent to the GPU", RESTART_APP_LINK;
    85, Application, Warning, "copy engine error", COPY_ENGINE;
    92, Hardware, Warning, "high rate of corrected memory errors", SUPPORT;
    93, Notice, Info, "the GPU's InfoROM wears", NOTHING;
    94, Hardware, Warning, "contained memory error", "Restart the one application that was hit; others may go on. Reset the GPU when it is next idle.";
    95, Hardware, Critical, "uncontained memory error", DRAIN_RESET;
    108, Victim, Info, "NVLink remote translation error", "Another GPU or the program caused it: check the application.";
    109, Hardware, Critical, "context switch timed out", RESET;
    110, Driver, Critical, "security fault", DRAIN_RESET;
    119..=120, Driver, Critical, "the GPU's system processor (GSP) failed", DRAIN_RESET_REBOOT;
    121, Link, Warning, "chip-to-chip link error", "Nothing to do now; reboot the node if it happens again.";
    122..=123, Hardware, Critical, "the GPU's power controller did not answer", REBOOT;
    124..=125, Hardware, Warning, "the GPU's InfoROM cannot be used", REBOOT;
    126..=135, Application, Warning, "copy engine error", COPY_ENGINE;
    136, Link, Critical, "NVLink training failed", "Drain the node, reset the GPU and check the link's signal integrity.";
    137, Victim, Info, "NVLink privilege error", "Another GPU or the program caused it: check the application.";
    140, Hardware, Critical, "unrecovered memory error", DRAIN_RESET;
    141, Application, Info, "fast path error", NOTHING;
    143, Hardware, Critical, "the GPU could not be initialised", "Drain the node and reset the GPU; inspect the board if it does not come back.";
    144..=148, Link, Warning, "NVLink error", NVLINK5;
    149, Link, Warning, "NVLink error (NETIR)", "Decode the kernel's log: a bit error rate event points to cables; LINK_DOWN is fatal: reset the GPU and inspect its peer.";
    150, Link, Critical, "NVLink controller watchdog", DRAIN_RESET;
    151, Driver, Warning, "key rotation failed", "Restart the virtual machine.";
    154, Detail, Info, "the GPU's recovery action changed", "Do what the driver's recovery action says.";
    155, Link, Critical, "NVLink software-defined error", DRAIN_RESET;
    156, Hardware, Warning, "a faulty unit was retired", "Reset the GPU when it is next idle.";
    157, Hardware, Critical, "a faulty unit could not be retired", "Drain the node and contact NVIDIA support.";
    158, Hardware, Critical, "the GPU timed out for good", DRAIN_RESET_REBOOT;
    159..=161, Driver, Warning, "memory channel error", CHECK_UVM;
    162..=164, Notice, Info, "the power smoothing circuit changed its state", NOTHING;
    165, Notice, Warning, "the power smoothing circuit nears its end of life", "Plan the replacement of the board.";
    167, Hardware, Critical, "the PCIe link timed out for good", DRAIN_RESET_REBOOT;
    168, Hardware, Warning, "reduced memory capacity", "Run the field diagnostic at the next opportunity.";
    169, Driver, Critical, "the security processor halted", DRAIN_RESET;
    171..=172, Hardware, Critical, "uncorrectable memory error, in detail", DRAIN_RESET;
    173, Link, Critical, "the chip-to-chip link failed", "Drain the node, reboot it and inspect the board.";
}

/// Whether a code says that the GPU is no longer there. After others, its status tells.
pub(crate) fn means_lost(code: u64) -> bool {
    code == 79
}

/// The kind that tells of a code where it is watched for: it knows more of the same trouble than the code says.
pub(crate) fn told_by(code: u64) -> Option<Kind> {
    Some(match code {
        48 | 171 | 172 => Kind::EccUncorrectable,
        92 => Kind::EccStorm,
        63 | 64 => Kind::RowRemap,
        74 | 136 | 144..=150 | 155 => Kind::NvlinkError,
        119 | 120 => Kind::GpuUnresponsive,
        _ => return None,
    })
}

/// How long repeats of a code are one burst, in milliseconds: each thread that faults logs its own line.
pub(crate) fn burst_ms(code: u64) -> i64 {
    match code {
        13 => 15_000,
        31 => 180_000,
        _ => 60_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_stands_in_two_rows() {
        for pair in TABLE.windows(2) {
            let (before, after) = (pair[0].codes, pair[1].codes);
            assert!(
                before.0 <= before.1 && before.1 < after.0,
                "{before:?} {after:?}"
            );
        }
    }

    #[test]
    fn codes_have_the_severity_that_the_catalogue_gives_them() {
        let check = |code, class, severity| {
            let row = row(code);
            assert_eq!((row.class, row.severity), (class, severity), "XID {code}");
        };
        check(13, Class::Application, Severity::Info);
        check(31, Class::Application, Severity::Info);
        check(40, Class::Application, Severity::Warning);
        check(45, Class::Victim, Severity::Info);
        check(48, Class::Hardware, Severity::Critical);
        check(63, Class::Hardware, Severity::Warning);
        check(79, Class::Hardware, Severity::Critical);
        check(94, Class::Hardware, Severity::Warning);
        check(119, Class::Driver, Severity::Critical);
        check(154, Class::Detail, Severity::Info);
        check(999, Class::Driver, Severity::Warning);
        assert!(row(999).action.contains("support"));
    }
}
