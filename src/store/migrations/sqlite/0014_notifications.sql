-- Notifications of messages for people who look elsewhere.

create table notifications (
    -- This user wants to be notified.
    user_id integer primary key references users (id) on delete cascade,
    quiet_until integer,                     -- do not disturb: not before this time
    sounds integer not null default 0 check (sounds in (0, 1))
);

create table clients_in_view (
    -- This client's person looked at its tab during that visit. Only several nodes tell each other by it.
    client_id integer primary key references clients (id) on delete cascade,
    visit integer not null,
    user_id integer not null
);
create index clients_in_view_user on clients_in_view (user_id);
