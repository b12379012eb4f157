-- Certificates that were chosen for the names of a service by hand. They win over what its manifest chooses.
CREATE TABLE service_certificates (
    app TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    service TEXT NOT NULL,
    certificate TEXT NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
    PRIMARY KEY (app, service)
) STRICT;
