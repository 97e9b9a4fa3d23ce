//! The rows of every output for one batch of flows.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use super::cases::{CaseRow, case_rows};
use super::columns::{
    self, Pins, batch, bools, env_times, ints, local_times, nullable_texts, nullable_uints, reals,
    texts, uints,
};
use super::flow::{Flow, FlowSource};
use super::layout::{OUTPUTS, Output};
use super::zones::ZONES;

const MICROS_PER_MINUTE: i64 = 60_000_000;
const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// Schemas and pins, fixed for a world.
pub(super) struct RowShapes {
    pub(super) pins: Pins,
    pub(super) routing_universe_hash: String,
    schemas: Vec<SchemaRef>,
}

impl RowShapes {
    pub(super) fn new(pins: Pins, routing_universe_hash: String) -> Self {
        let schemas = OUTPUTS.iter().map(|output| output.schema()).collect();
        Self {
            pins,
            routing_universe_hash,
            schemas,
        }
    }

    pub(super) fn schema(&self, output: Output) -> &SchemaRef {
        &self.schemas[output as usize]
    }
}

/// Columns that several outputs of one batch share.
struct Shared {
    flow_id: ArrayRef,
    arrival_seq: ArrayRef,
    merchant_id: ArrayRef,
    party_id: ArrayRef,
    account_id: ArrayRef,
    instrument_id: ArrayRef,
    device_id: ArrayRef,
    ip_id: ArrayRef,
    ts_utc: ArrayRef,
    pins: columns::PinColumns,
}

impl Shared {
    fn new(flows: &[Flow], pins: &Pins) -> Result<Self, ArrowError> {
        let times: Vec<i64> = flows.iter().map(|flow| flow.time_micros).collect();
        let entity = |pick: fn(&Flow) -> i64| ints(flows.iter().map(pick).collect());
        Ok(Self {
            flow_id: entity(|flow| flow.flow_id),
            arrival_seq: entity(|flow| flow.arrival_seq),
            merchant_id: uints(flows.iter().map(|flow| flow.merchant.id).collect()),
            party_id: entity(|flow| flow.entities.party_id),
            account_id: entity(|flow| flow.entities.account_id),
            instrument_id: entity(|flow| flow.entities.instrument_id),
            device_id: entity(|flow| flow.entities.device_id),
            ip_id: entity(|flow| flow.entities.ip_id),
            ts_utc: env_times(&times)?,
            pins: pins.columns(flows.len()),
        })
    }
}

/// One record batch per output, in the order of [`OUTPUTS`].
pub(super) fn batches(
    shapes: &RowShapes,
    source: &FlowSource,
    flows: &[Flow],
) -> Result<Vec<RecordBatch>, ArrowError> {
    let shared = Shared::new(flows, &shapes.pins)?;
    let events = Events::new(flows, &shapes.pins)?;
    let of = |output, columns| batch(shapes.schema(output), columns);
    Ok(vec![
        of(Output::Arrivals, arrivals(shapes, source, flows, &shared)?)?,
        of(Output::Entities, entities(flows, &shared))?,
        of(Output::Sessions, sessions(shapes, source, flows)?)?,
        of(
            Output::AnchorsBaseline,
            anchors(&shared, cents(flows, |f| f.baseline_cents)),
        )?,
        of(Output::AnchorsWithFraud, anchors_with_fraud(flows, &shared))?,
        of(
            Output::EventsBaseline,
            events.columns(twice(flows, |f| euros(f.baseline_cents))),
        )?,
        of(Output::EventsWithFraud, events.with_fraud(flows))?,
        of(Output::EventLabels, events.labels(flows))?,
        of(Output::TruthLabels, truth_labels(flows, &shared))?,
        of(Output::BankView, bank_view(flows, &shared))?,
        of(Output::CaseTimeline, case_timeline(shapes, flows)?)?,
    ])
}

fn arrivals(
    shapes: &RowShapes,
    source: &FlowSource,
    flows: &[Flow],
    shared: &Shared,
) -> Result<Vec<ArrayRef>, ArrowError> {
    let zone = |flow: &Flow| &ZONES[flow.merchant.zone];
    let settlement = |flow: &Flow| flow.merchant.settlement_zone.map(|zone| &ZONES[zone]);
    let local =
        |flow: &Flow, minutes: i32| flow.time_micros + i64::from(minutes) * MICROS_PER_MINUTE;
    let primary: Vec<i64> = flows
        .iter()
        .map(|f| local(f, zone(f).offset_minutes))
        .collect();
    // Rows without a settlement zone are formatted too and then nulled: one pass, no second buffer.
    let settled: Vec<i64> = flows
        .iter()
        .map(|f| local(f, settlement(f).map_or(0, |zone| zone.offset_minutes)))
        .collect();
    let no_settlement = bools(
        flows
            .iter()
            .map(|flow| settlement(flow).is_none())
            .collect(),
    );
    let ts_local_settlement = null_where(&local_times(&settled)?, &no_settlement)?;
    let tzid_settlement = nullable_texts(flows.iter().map(|f| settlement(f).map(|zone| zone.tzid)));
    let tzid_primary = texts(flows.iter().map(|flow| zone(flow).tzid));
    let channel = |f: &Flow| if f.merchant.is_virtual { "CNP" } else { "CP" };
    let hour = |f: &Flow| (f.time_micros - source.start_micros) / MICROS_PER_HOUR;
    let place = |f: &Flow, is_virtual| (f.merchant.is_virtual == is_virtual).then(|| place_of(f));
    let pins = &shared.pins;
    Ok(vec![
        pins.manifest_fingerprint.clone(),
        pins.parameter_hash.clone(),
        uints(vec![shapes.pins.seed; flows.len()]),
        pins.scenario_id.clone(),
        shared.merchant_id.clone(),
        tzid_primary.clone(),
        texts(flows.iter().map(channel)),
        ints(flows.iter().map(hour).collect()),
        shared.arrival_seq.clone(),
        shared.ts_utc.clone(),
        tzid_primary.clone(),
        local_times(&primary)?,
        tzid_settlement.clone(),
        ts_local_settlement.clone(),
        tzid_settlement,
        ts_local_settlement,
        tzid_primary,
        nullable_uints(flows.iter().map(|flow| place(flow, false)).collect()),
        nullable_uints(flows.iter().map(|flow| place(flow, true)).collect()),
        texts(std::iter::repeat_n(
            shapes.routing_universe_hash.as_str(),
            flows.len(),
        )),
        reals(
            flows
                .iter()
                .map(|flow| flow.merchant.flows as f64 / 168.0)
                .collect(),
        ),
        bools(flows.iter().map(|flow| flow.merchant.is_virtual).collect()),
        texts(std::iter::repeat_n("1.0.0", flows.len())),
    ])
}

/// One of a merchant's nine sites or edges, anywhere in the unsigned range.
fn place_of(flow: &Flow) -> u64 {
    let branch = flow.flow_id.cast_unsigned() % 9;
    (flow.merchant.id ^ (branch << 17)).max(1)
}

fn null_where(values: &ArrayRef, is_null: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    use arrow::array::AsArray;
    arrow::compute::nullif(values, is_null.as_boolean())
}

fn entities(flows: &[Flow], shared: &Shared) -> Vec<ArrayRef> {
    vec![
        shared.pins.scenario_id.clone(),
        shared.arrival_seq.clone(),
        shared.merchant_id.clone(),
        shared.ts_utc.clone(),
        shared.party_id.clone(),
        shared.account_id.clone(),
        shared.instrument_id.clone(),
        shared.device_id.clone(),
        shared.ip_id.clone(),
        ints(flows.iter().map(|flow| flow.session_id).collect()),
        shared.pins.seed.clone(),
        shared.pins.manifest_fingerprint.clone(),
        shared.pins.parameter_hash.clone(),
    ]
}

fn sessions(
    shapes: &RowShapes,
    source: &FlowSource,
    flows: &[Flow],
) -> Result<Vec<ArrayRef>, ArrowError> {
    let heads: Vec<&Flow> = flows.iter().filter(|flow| flow.starts_session).collect();
    let sessions: Vec<_> = heads.iter().map(|head| source.session(head)).collect();
    let starts: Vec<i64> = heads.iter().map(|head| head.time_micros).collect();
    let ends: Vec<i64> = sessions.iter().map(|session| session.end_micros).collect();
    let pins = shapes.pins.columns(heads.len());
    let of = |pick: fn(&Flow) -> i64| ints(heads.iter().map(|head| pick(head)).collect());
    Ok(vec![
        of(|flow| flow.session_id),
        ints(sessions.iter().map(|session| session.flows).collect()),
        env_times(&starts)?,
        env_times(&ends)?,
        pins.seed,
        pins.manifest_fingerprint,
        pins.scenario_id,
        of(|flow| flow.entities.party_id),
        of(|flow| flow.entities.device_id),
        of(|flow| flow.entities.account_id),
        of(|flow| flow.entities.instrument_id),
        uints(heads.iter().map(|head| head.merchant.id).collect()),
    ])
}

fn anchors(shared: &Shared, amount: ArrayRef) -> Vec<ArrayRef> {
    let mut columns = vec![
        shared.flow_id.clone(),
        shared.arrival_seq.clone(),
        shared.merchant_id.clone(),
        shared.party_id.clone(),
        shared.account_id.clone(),
        shared.instrument_id.clone(),
        shared.device_id.clone(),
        shared.ip_id.clone(),
        shared.ts_utc.clone(),
        amount,
    ];
    columns.extend(shared.pins.tail());
    columns
}

fn anchors_with_fraud(flows: &[Flow], shared: &Shared) -> Vec<ArrayRef> {
    let mut columns = anchors(shared, cents(flows, |flow| flow.fraud_cents));
    columns.push(bools(
        flows.iter().map(|flow| flow.fraud.is_some()).collect(),
    ));
    columns.push(nullable_texts(flows.iter().map(campaign_id)));
    columns
}

fn truth_labels(flows: &[Flow], shared: &Shared) -> Vec<ArrayRef> {
    let label = |flow: &Flow| flow.fraud.as_ref().map_or("LEGIT", |fraud| fraud.label);
    let mut columns = vec![
        shared.flow_id.clone(),
        bools(flows.iter().map(|flow| flow.fraud.is_some()).collect()),
        texts(flows.iter().map(label)),
    ];
    columns.extend(shared.pins.tail());
    columns
}

fn bank_view(flows: &[Flow], shared: &Shared) -> Vec<ArrayRef> {
    let label = |flow: &Flow| match (flow.bank_fraud, flow.disputed) {
        (true, _) => "BANK_CONFIRMED_FRAUD",
        (false, true) => "BANK_REJECTED_DISPUTE",
        (false, false) => "BANK_CONFIRMED_LEGIT",
    };
    let mut columns = vec![
        shared.flow_id.clone(),
        bools(flows.iter().map(|flow| flow.bank_fraud).collect()),
        texts(flows.iter().map(label)),
    ];
    columns.extend(shared.pins.tail());
    columns
}

fn case_timeline(shapes: &RowShapes, flows: &[Flow]) -> Result<Vec<ArrayRef>, ArrowError> {
    let rows: Vec<CaseRow> = flows
        .iter()
        .flat_map(|f| case_rows(shapes.pins.seed, f))
        .collect();
    let times: Vec<i64> = rows.iter().map(|row| row.time_micros).collect();
    let mut columns = vec![
        ints(rows.iter().map(|row| row.case_id).collect()),
        ints(rows.iter().map(|row| row.case_event_seq).collect()),
        ints(rows.iter().map(|row| row.flow_id).collect()),
        texts(rows.iter().map(|row| row.event_type)),
        env_times(&times)?,
    ];
    columns.extend(shapes.pins.columns(rows.len()).tail());
    Ok(columns)
}

/// The request and the response of every flow, next to each other.
struct Events {
    flow_id: ArrayRef,
    event_seq: ArrayRef,
    event_type: ArrayRef,
    ts_utc: ArrayRef,
    tail: Vec<ArrayRef>,
}

impl Events {
    fn new(flows: &[Flow], pins: &Pins) -> Result<Self, ArrowError> {
        let times: Vec<i64> = flows
            .iter()
            .flat_map(|flow| [flow.time_micros, flow.response_micros])
            .collect();
        let types = flows.iter().flat_map(|_| ["AUTH_REQUEST", "AUTH_RESPONSE"]);
        Ok(Self {
            flow_id: ints(twice(flows, |flow| flow.flow_id)),
            event_seq: ints(flows.iter().flat_map(|_| [0, 1]).collect()),
            event_type: texts(types),
            ts_utc: env_times(&times)?,
            tail: pins.columns(flows.len() * 2).tail(),
        })
    }

    fn columns(&self, amounts: Vec<f64>) -> Vec<ArrayRef> {
        let mut columns = vec![
            self.flow_id.clone(),
            self.event_seq.clone(),
            self.event_type.clone(),
            self.ts_utc.clone(),
            reals(amounts),
        ];
        columns.extend(self.tail.iter().cloned());
        columns
    }

    fn with_fraud(&self, flows: &[Flow]) -> Vec<ArrayRef> {
        let mut columns = self.columns(twice(flows, |flow| euros(flow.fraud_cents)));
        columns.push(bools(twice(flows, |flow| flow.fraud.is_some())));
        columns.push(nullable_texts(
            flows.iter().flat_map(|flow| [campaign_id(flow); 2]),
        ));
        columns
    }

    fn labels(&self, flows: &[Flow]) -> Vec<ArrayRef> {
        let mut columns = vec![
            self.flow_id.clone(),
            self.event_seq.clone(),
            bools(twice(flows, |flow| flow.fraud.is_some())),
            bools(twice(flows, |flow| flow.bank_fraud)),
        ];
        columns.extend(self.tail.iter().cloned());
        columns
    }
}

fn campaign_id<'a>(flow: &'a Flow<'_>) -> Option<&'a str> {
    flow.fraud.as_ref().map(|fraud| fraud.campaign_id)
}

fn twice<T: Copy>(flows: &[Flow], pick: impl Fn(&Flow) -> T) -> Vec<T> {
    flows.iter().flat_map(|flow| [pick(flow); 2]).collect()
}

fn cents(flows: &[Flow], pick: impl Fn(&Flow) -> u64) -> ArrayRef {
    reals(flows.iter().map(|flow| euros(pick(flow))).collect())
}

/// Amounts are two-digit decimals; a division by 100 is the nearest double of each.
fn euros(cents: u64) -> f64 {
    cents as f64 / 100.0
}
