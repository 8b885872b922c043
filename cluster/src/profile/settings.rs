//! A profile's settings and the commented file that people edit.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;

/// A new profile's file. It says what the defaults are, so it parses to [`Settings::default`].
pub const TEMPLATE: &str = r#"# A Chorus profile. Every line is a default: change what you need, delete what you like.

[engines]
# How many engines `chorus cluster start` starts; 0 is one for each core.
count = 0
# A runtime whose variables take more than this many megabytes is not copied before a snippet: if the snippet
# kills it, they are lost.
checkpoint_mb = 4000

[network]
# "ipc": Unix sockets, for clusters on one machine. "tcp": for engines and clients elsewhere.
transport = "ipc"
# The address that tcp listens on.
address = "127.0.0.1"
# Messages are signed, not encrypted. Addresses that others can reach are refused unless this is true.
insecure = false

[heartbeat]
# How often engines are asked whether they live, in milliseconds.
period_ms = 1000
# After how many missed answers an engine counts as dead.
misses = 10

[scheduler]
# How load-balanced tasks find their engine: "leastload" (the one that has least to do), "lru" (the one used longest ago),
# "plainrandom", "twobin" (the one used longer ago of two at random), "weighted" (the less loaded of two at random).
scheme = "leastload"
# How many tasks an engine is given before it has answered the first. "auto": two while tasks take less than 4 ms, more while
# they are shorter still, and one while some take longer; no further one while the engine is at such a long task. 0: no limit.
hwm = "auto"

[limits]
# How many requests and their results the controller remembers, and how many megabytes of them.
results = 10000
results_mb = 256
# How many megabytes of load-balanced tasks one client may have waiting and running. More are refused.
queue_mb = 1024
"#;

/// All settings of a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The engines.
    pub engines: Engines,
    /// Where the controller listens.
    pub network: Network,
    /// How dead engines are found.
    pub heartbeat: HeartbeatSettings,
    /// Load balancing.
    pub scheduler: SchedulerSettings,
    /// What the controller keeps.
    pub limits: Limits,
}

/// `[engines]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Engines {
    /// How many; 0 is one for each core.
    pub count: u32,
    /// Megabytes above which no checkpoint is made.
    pub checkpoint_mb: u64,
}

/// `[network]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Unix sockets or TCP.
    pub transport: TransportSetting,
    /// For TCP.
    pub address: String,
    /// Whether addresses other than loopback are allowed.
    pub insecure: bool,
}

/// `transport`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportSetting {
    /// Unix sockets.
    #[default]
    Ipc,
    /// TCP.
    Tcp,
}

/// `[heartbeat]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeartbeatSettings {
    /// Milliseconds between two beats.
    pub period_ms: u32,
    /// Beats that may be missed.
    pub misses: u32,
}

/// `[scheduler]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerSettings {
    /// The scheme's name.
    pub scheme: Scheme,
    /// Tasks an engine holds at a time.
    pub hwm: HighWaterMark,
}

/// `scheme`, each over the engines that are not full.
///
/// Source: <https://ipyparallel.readthedocs.io/en/stable/tutorial/task.html#schedulers>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// The engine with the fewest tasks; of several, the one used longest ago.
    #[default]
    Leastload,
    /// The engine used longest ago.
    Lru,
    /// The less loaded of two at random, idle ones being far more likely.
    Weighted,
    /// Of two at random, the one used longer ago.
    Twobin,
    /// Any.
    Plainrandom,
}

impl Scheme {
    /// Its name, in the profile and for clients.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leastload => "leastload",
            Self::Lru => "lru",
            Self::Weighted => "weighted",
            Self::Twobin => "twobin",
            Self::Plainrandom => "plainrandom",
        }
    }
}

/// `hwm`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "\"auto\" or a number of tasks, 0 for no limit")]
pub enum HighWaterMark {
    /// As the tasks' length makes sense.
    #[default]
    #[serde(with = "auto")]
    Auto,
    /// So many; 0 is no limit.
    Tasks(u32),
}

mod auto {
    use serde::de::{Deserialize, Deserializer, Error};

    pub(super) fn serialize<S: serde::Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("auto")
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "auto" => Ok(()),
            _ => Err(D::Error::custom("not \"auto\"")),
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests remembered.
    pub results: u32,
    /// Megabytes of them.
    pub results_mb: u64,
    /// Megabytes of load-balanced tasks, for each client.
    pub queue_mb: u64,
}

impl Default for Engines {
    fn default() -> Self {
        Self {
            count: 0,
            checkpoint_mb: 4000,
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            transport: TransportSetting::Ipc,
            address: "127.0.0.1".to_owned(),
            insecure: false,
        }
    }
}

impl Default for HeartbeatSettings {
    fn default() -> Self {
        Self {
            period_ms: 1000,
            misses: 10,
        }
    }
}

impl Default for SchedulerSettings {
    fn default() -> Self {
        Self {
            scheme: Scheme::Leastload,
            hwm: HighWaterMark::Auto,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            results: 10_000,
            results_mb: 256,
            queue_mb: 1024,
        }
    }
}

impl Settings {
    /// Reads a profile's text.
    ///
    /// # Errors
    /// Says in which line what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let settings: Self =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        if settings.heartbeat.period_ms == 0 || settings.heartbeat.misses == 0 {
            return Err("period_ms and misses under [heartbeat] must not be 0".to_owned());
        }
        Ok(settings)
    }

    /// How many engines to start.
    pub fn engine_count(&self) -> u32 {
        match self.engines.count {
            0 => std::thread::available_parallelism()
                .ok()
                .and_then(|cores| u32::try_from(cores.get()).ok())
                .unwrap_or(1),
            count => count,
        }
    }

    /// Time between two beats.
    pub fn heartbeat_period(&self) -> Duration {
        Duration::from_millis(self.heartbeat.period_ms.into())
    }
}

impl Network {
    /// Refuses what everybody could reach.
    ///
    /// # Errors
    /// When TCP is to listen on an address other than loopback and nobody said that this is fine.
    pub fn check(&self) -> Result<(), Error> {
        let loopback = self.address == "localhost"
            || self
                .address
                .trim_matches(['[', ']'])
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        if self.transport == TransportSetting::Ipc || loopback || self.insecure {
            Ok(())
        } else {
            Err(Error::NotLoopback {
                address: self.address.clone(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_says_the_defaults() {
        assert_eq!(Settings::parse(TEMPLATE).unwrap(), Settings::default());
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
        assert!(Settings::default().engine_count() > 0);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, says) in [
            ("[heartbeat]\nperiod_ms = 0", "must not be 0"),
            ("[network]\ntransport = \"udp\"", "udp"),
            ("[engine]\ncount = 1", "engine"),
            ("[engines]\ncount = -1", "line 2"),
            ("[scheduler]\nscheme = \"best\"", "plainrandom"),
            ("[scheduler]\nhwm = \"some\"", "\"auto\" or a number"),
        ] {
            let error = Settings::parse(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn marks_and_schemes_have_names() {
        for (text, hwm) in [
            ("\"auto\"", HighWaterMark::Auto),
            ("0", HighWaterMark::Tasks(0)),
            ("7", HighWaterMark::Tasks(7)),
        ] {
            let settings = Settings::parse(&format!("[scheduler]\nhwm = {text}")).unwrap();
            assert_eq!(settings.scheduler.hwm, hwm);
        }
        for scheme in [
            Scheme::Leastload,
            Scheme::Lru,
            Scheme::Weighted,
            Scheme::Twobin,
            Scheme::Plainrandom,
        ] {
            let text = format!("[scheduler]\nscheme = \"{}\"", scheme.as_str());
            assert_eq!(Settings::parse(&text).unwrap().scheduler.scheme, scheme);
        }
    }

    #[test]
    fn only_loopback_unless_said_aloud() {
        for (address, insecure, good) in [
            ("127.0.0.1", false, true),
            ("::1", false, true),
            ("[::1]", false, true),
            ("localhost", false, true),
            ("0.0.0.0", false, false),
            ("*", false, false),
            ("10.1.2.3", false, false),
            ("10.1.2.3", true, true),
        ] {
            let network = Network {
                transport: TransportSetting::Tcp,
                address: address.to_owned(),
                insecure,
            };
            assert_eq!(network.check().is_ok(), good, "{address}");
        }
    }
}
