"""What people see while lorabench runs and when it is done."""
