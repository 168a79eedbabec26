-- What retention drops is looked up by its age each minute, while nothing else can be written: without these every
-- incident and every cord would be read to find that none is old enough.
CREATE INDEX incident_settled ON incident (last_transition_at_ms, id) WHERE open = 0;

CREATE INDEX cord_age ON cord (last_transition_at_ms);
