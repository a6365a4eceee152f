-- Lists the people in a room, longest present first.

alter table clients_active add column entered_at integer not null default 0;
drop index clients_active_room;
create index clients_active_room on clients_active (room_id, entered_at, client_id);

-- How many clients are in the room; updated by the triggers below.
alter table rooms add column people integer not null default 0;

create trigger clients_active_enter after insert on clients_active begin
    update rooms set people = people + 1 where id = new.room_id;
end;
create trigger clients_active_leave after delete on clients_active begin
    update rooms set people = people - 1 where id = old.room_id;
end;
create trigger clients_active_change after update of room_id on clients_active when old.room_id <> new.room_id begin
    update rooms set people = people - 1 where id = old.room_id;
    update rooms set people = people + 1 where id = new.room_id;
end;

update rooms set people = (select count(*) from clients_active a where a.room_id = rooms.id);
