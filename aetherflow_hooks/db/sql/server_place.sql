-- server_place: where Postgres listens, as whoever has connected to it sees that; no host: at a socket file.
-- returns host, port
select host(inet_server_addr()) as host, current_setting('port')::integer as port
