"""What ``scamp-gateway audit`` looks for."""
