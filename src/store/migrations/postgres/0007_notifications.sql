-- Notifications of messages for people who look elsewhere.

-- This user wants to be notified.
create table notifications (
    user_id bigint primary key references users (id) on delete cascade,
    quiet_until bigint,                      -- do not disturb: not before this time
    sounds boolean not null default false
);

-- This client's person looked at its tab during that visit. Only several nodes tell each other by it.
create table clients_in_view (
    client_id bigint primary key references clients (id) on delete cascade,
    visit bigint not null,
    user_id bigint not null
);
create index clients_in_view_user on clients_in_view (user_id);
